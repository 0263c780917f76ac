"""A tiny run with an index of sixty pictures, the app over it, and the same as a process of its own."""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from diptych.data.sources import open_data
from diptych.indexing import add_pictures, open_for
from diptych.predictor import Predictor, load
from diptych.serve.app import make_app
from diptych.serve.collection import Collection
from diptych.serve.settings import ServeSettings


@pytest.fixture(scope="session")
def predictor(run_folder: Path) -> Predictor:
    return load(run_folder, device="cpu")


@pytest.fixture(scope="session")
def index_folder(predictor: Predictor, run_folder: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, source = tmp_path_factory.mktemp("served") / "index", open_data(table)
    with open_for(predictor, run_folder, folder) as store:
        add_pictures(store, predictor, source, source.rows(), named=str(table))
    return folder


@pytest.fixture
def make(predictor: Predictor, index_folder: Path) -> Iterator[Callable[..., TestClient]]:
    """Make a client of an app with such settings; `index=False` leaves the index out."""
    opened = []

    def client(*, index: bool = True, **settings: object) -> TestClient:
        collection = Collection.open(index_folder, predictor) if index else None
        found = TestClient(make_app(predictor, collection, ServeSettings.parse(settings)))
        found.__enter__()
        opened.append(found)
        return found

    yield client
    for one in opened:
        one.__exit__(None, None, None)


@pytest.fixture
def client(make: Callable[..., TestClient]) -> TestClient:
    return make()


def picture(colour: str = "red", *, size: tuple[int, int] = (60, 40), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def halves() -> bytes:
    """Make a picture whose places differ."""
    image, buffer = Image.new("RGB", (90, 60), "green"), io.BytesIO()
    image.paste("red", (10, 5, 40, 30))
    image.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    said: str
    log: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address + path, timeout=30)


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def begin(run_folder: Path, index_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start `diptych serve` on a free port; what still runs at the end is killed."""
    begun: list[subprocess.Popen[str]] = []

    def run(*words: object, ready: bool = True) -> Running:
        command = [sys.executable, "-m", "diptych", "serve", run_folder, "--index", index_folder, "--port", 0, *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        log = tmp_path_factory.mktemp("log") / "server.log"
        with log.open("w") as errors:  # a pipe that nobody reads would fill
            process = subprocess.Popen(
                list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True, env=env
            )
        begun.append(process)
        said = ""
        while "Open http" not in said:
            line = process.stdout.readline()
            assert line, log.read_text()
            said += line
        address = re.search(r"http://[\d.]+:\d+", said)[0]
        for _ in range(100 if ready else 0):
            try:
                httpx.get(address + "/health/live", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        return Running(process, address, said, log)

    yield run
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def server(begin: Start) -> Running:
    """Return a server that tests share and leave running."""
    return begin()
