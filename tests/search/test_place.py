from __future__ import annotations

import sys

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.search.opening import make_index, open_index
from diptych.search.place import Place
from tests.servers import start_milvus


def test_addresses_of_servers_and_folders():
    assert Place.parse("photos.index") is None
    place = Place.parse("milvus://root:secret@host/photos")
    assert (place.kind, place.url, place.name) == ("milvus", "http://host:19530", "photos")
    assert (place.user, place.password, place.shown) == ("root", "secret", "milvus://root@host/photos")
    assert Place.parse("milvus+tls://host:1/a").url == "https://host:1"
    place = Place.parse("postgresql://me:secret@host:5433/base/photos?sslmode=require")
    assert (place.url, place.name) == ("postgresql://me:secret@host:5433/base?sslmode=require", "photos")
    assert place.shown == "postgresql://me@host:5433/base/photos"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("milvis://h/a", "unknown kind of server 'milvis'; did you mean 'milvus'"),
        ("milvus://h", "milvus://h is not the address of an index: give milvus://HOST"),
        ("milvus:///a", "is not the address of an index"),
        ("milvus://h/a/b", "is not the address of an index"),
        ("postgresql://u:p@h/base", "postgresql://u@h/base is not the address"),
        ("postgresql://h/base/drop table", "the last word of letters, digits and _"),
        ("milvus://h:port/a", "is no address"),
    ],
)
def test_addresses_that_are_none(address, line):
    with pytest.raises(UserError, match=line):
        open_index(address)


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [("milvus://127.0.0.1:9/a", "pymilvus", "milvus"), ("postgresql://127.0.0.1:9/b/a", "psycopg", "postgres")],
)
def test_a_missing_client_names_its_extra(address, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}: pip install 'diptych\[{extra}\]'"):
        open_index(address)


@pytest.mark.parametrize("address", ["milvus://127.0.0.1:9/a", "postgresql://u@127.0.0.1:9/b/a"])
def test_a_server_that_is_not_there(address):
    pytest.importorskip("pymilvus" if address.startswith("milvus") else "psycopg")
    with pytest.raises(UserError, match=r"the server of \w+://.*/a cannot be reached.*: start it"):
        open_index(address)


@pytest.mark.slow
def test_a_server_that_goes_away_is_told_and_what_was_acknowledged_is_there_again(tmp_path):
    pytest.importorskip("milvus_lite")
    server, port = start_milvus(tmp_path / "data")
    index = make_index(f"milvus://127.0.0.1:{port}/a", dim=3, model="m", run="r")
    index.add(["x", "y"], np.eye(3)[:2])
    server.kill()
    server.wait()
    with pytest.raises(UserError, match="cannot be reached: start it"):
        index.search(np.eye(3))
    again, port = start_milvus(tmp_path / "data")
    with open_index(f"milvus://127.0.0.1:{port}/a") as index:
        assert index.keys() == ["x", "y"]
    again.kill()
    again.wait()
