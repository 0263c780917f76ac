"""Indexes in servers, as typed: the same verbs, the same hits as a folder."""

from __future__ import annotations

import json

import pytest

import diptych


@pytest.mark.parametrize("kind", ["milvus", "postgresql"])
def test_index_and_search_by_the_address_of_a_server(cli, run_folder, table, tmp_path, request, kind):
    address = request.getfixturevalue(kind) % f"verbs_{kind}"
    for place in (address, tmp_path / "folder"):
        status, out, _ = cli("index", run_folder, table, "--out", place, "--split", "test")
        assert status == 0
        assert "10 pictures added, 0 known before" in out
    assert (
        "0 pictures added, 10 known before" in cli("index", run_folder, table, "--out", address, "--split", "test")[1]
    )
    found = []
    for place in (address, tmp_path / "folder"):
        words = ("search", place, "a red circle", "-k", 4, "--where", "split=test", "--json", tmp_path / "found.json")
        assert cli(*words)[0] == 0
        found.append(json.loads((tmp_path / "found.json").read_text()))
    assert found[0] == found[1]
    assert cli("search", address, "a red circle", "--hybrid")[0] == 0
    status, _, err = cli("search", address.replace("verbs", "other"), "a red circle")
    assert (status, "is not there; make one with `diptych index`" in err, err.count("\n")) == (2, True, 1)
    model = diptych.load(run_folder, device="cpu")
    assert [hit.key for hit in model.search("a red circle", address, k=4)] == [
        hit["key"] for hit in found[0]["results"]
    ]


@pytest.mark.parametrize("kind", ["milvus", "postgresql"])
def test_a_collection_is_served_from_a_server(cli, run_folder, table, request, kind):
    collection = pytest.importorskip("diptych.serve.collection")
    address = request.getfixturevalue(kind) % f"served_{kind}"
    cli("index", run_folder, table, "--out", address, "--split", "test")
    model = diptych.load(run_folder, device="cpu")
    opened = collection.Collection.open(address, model)
    question = collection.Question(vector=model.embed_text("a red circle")[0], k=3, where={})
    (hits,) = opened.search([question])
    assert len(hits) == 3
    assert opened.picture(hits[0].key) is not None
    opened.close()


def test_a_server_that_is_not_there_is_one_line(cli):
    pytest.importorskip("psycopg")
    status, out, err = cli("search", "postgresql://me:secret@127.0.0.1:9/base/a", "a red circle")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "the server of postgresql://me@127.0.0.1:9/base/a cannot be reached" in err
    assert "secret" not in err
