from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.errors import UserError
from diptych.search.folder import FolderIndex


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def index(folder) -> FolderIndex:
    made = FolderIndex.create(folder, dim=3, model="clip-1")
    yield made
    made.close()


def _fill(index: FolderIndex) -> None:
    index.add(
        ["x", "y", "z", "xy"],
        np.array([[2.0, 0, 0], [0, 3, 0], [0, 0, 0.5], [1, 1, 0]]),
        metadata=[
            {"split": "train", "year": 1999, "tags": ["a", "b"], "good": True},
            {"split": "test", "year": 2005.5, "tags": ["b"], "good": False},
            {"split": "test", "year": "unknown", "tags": []},
            {"split": "dev", "year": None, 'od"d': 1, "自然": "山"},
        ],
        texts=["along x", None, "along z", "沿对角线"],
    )


def _found(index: FolderIndex, vector: list[float], **kwargs) -> list[str]:
    return [hit.key for hit in index.search(np.array(vector), **kwargs)[0]]


def test_search_gives_the_nearest_with_all_that_was_stored(index):
    _fill(index)
    (hits,) = index.search(np.array([4.0, 0, 0]), k=3)
    assert [(hit.key, hit.score) for hit in hits[:2]] == [("x", 1.0), ("xy", pytest.approx(0.5**0.5))]
    assert hits[0].metadata == {"split": "train", "year": 1999, "tags": ["a", "b"], "good": True}
    assert (hits[0].text, hits[1].text) == ("along x", "沿对角线")
    assert [hit.key for hit in hits[2:]] == ["y"]  # y and z score 0 both: insertion decides
    assert len(index) == 4


def test_batches_tensors_and_single_vectors_give_the_same(index):
    _fill(index)
    queries = torch.tensor([[1.0, 0.2, 0], [0, 0.3, 1]], requires_grad=True)
    batch = index.search(queries, k=2)
    assert [[hit.key for hit in hits] for hits in batch] == [["x", "xy"], ["z", "y"]]
    assert index.search(queries[1], k=2) == [batch[1]]
    assert index.search(queries.detach().numpy().astype(np.float16)[0], k=1)[0][0].key == "x"
    assert index.search(queries.bfloat16(), k=1)[1][0].key == "z"


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ({}, ["x", "y", "z", "xy"]),
        ({"split": "test"}, ["y", "z"]),
        ({"split": ["train", "dev"]}, ["x", "xy"]),
        ({"split": ("train",), "year": 1999}, ["x"]),
        ({"split": []}, []),
        ({"year": {">=": 1999}}, ["x", "y"]),
        ({"year": {">": 1999, "<": 2006}}, ["y"]),
        ({"year": {"<=": 1999}}, ["x"]),
        ({"year": {">": "a"}}, ["z"]),
        ({"year": None}, ["xy"]),
        ({"good": None}, ["z", "xy"]),
        ({"good": True}, ["x"]),
        ({"good": False}, ["y"]),
        ({"tags": "b"}, ["x", "y"]),
        ({"tags": ["a", "c"]}, ["x"]),
        ({"自然": "山"}, ["xy"]),
        ({"split": "TEST"}, []),
    ],
)
def test_filters(index, where, keys):
    _fill(index)
    assert index.keys(where) == keys
    assert index.count(where) == len(keys)
    assert sorted(_found(index, [1, 1, 1], where=where)) == sorted(keys)


def test_a_filter_is_applied_before_the_best_are_taken(index):
    index.add(
        [str(i) for i in range(200)],
        np.array([[1.0, i / 100, 0] for i in range(200)]),
        metadata=[{"far": i >= 195} for i in range(200)],
    )
    assert _found(index, [1, 0, 0], k=3, where={"far": True}) == ["195", "196", "197"]


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ({"splt": "test"}, "unknown field of the metadata 'splt'; did you mean 'split'"),
        ({"year": {"=>": 3}}, "unknown comparison in the filter on 'year' '=>'.*allowed: <, <=, >, >="),
        ({"year": {">": True}}, "cannot compare 'year' with True"),
        ({"year": {">": None}}, "cannot compare 'year' with None"),
        ({"split": [["test"]]}, r"cannot filter 'split' by \['test'\]"),
        ({"split": object()}, "cannot filter 'split' by"),
        ({'od"d': 1}, "double quote"),
    ],
)
def test_bad_filters_are_told(index, where, line):
    _fill(index)
    with pytest.raises(UserError, match=line):
        index.search(np.ones(3), where=where)


def test_upsert_replaces_whole_and_counts_as_new(index):
    _fill(index)
    index.upsert(["x", "new"], np.array([[0, 0, 1.0], [0, 0, 2]]), metadata=[{"split": "test"}, {}])
    assert index.keys() == ["y", "z", "xy", "x", "new"]
    assert _found(index, [0, 0, 1], k=3) == ["z", "x", "new"]
    (item,) = index.get(["x"])
    assert (item.metadata, item.text, item.vector.tolist()) == ({"split": "test"}, None, [0, 0, 1])


def test_delete_and_get(index):
    _fill(index)
    assert index.delete(["y", "nobody"]) == 1
    assert index.delete([]) == 0
    assert _found(index, [0, 1, 0], k=9) == ["xy", "x", "z"]
    assert [item.key for item in index.get(["xy", "x"])] == ["xy", "x"]
    with pytest.raises(UserError, match=r"the key 'y' \(and 1 more\) is not in the index"):
        index.get(["x", "y", "w"])
    index.add(["y"], np.array([0, 1.0, 0]))
    assert index.keys() == ["x", "z", "xy", "y"]


def test_everything_is_there_after_reopening(index, folder):
    _fill(index)
    index.delete(["z"])
    before = index.search(np.eye(3), k=4)
    index.close()
    for read_only in (False, True):
        with FolderIndex.open(folder, model="clip-1", read_only=read_only) as again:
            assert (again.dim, again.model, len(again)) == (3, "clip-1", 3)
            assert again.search(np.eye(3), k=4) == before


def test_vacuum_gives_space_back_and_changes_nothing_else(index, folder):
    index.add([str(i) for i in range(1000)], np.random.default_rng(0).standard_normal((1000, 3)))
    index.delete([str(i) for i in range(0, 1000, 2)])
    before = index.search(np.eye(3), k=20)
    index.vacuum()
    assert index.search(np.eye(3), k=20) == before
    assert [file.stat().st_size for file in folder.glob("vectors-*")] == [500 * 3 * 4]
    index.add(["late"], np.array([1.0, 0, 0]))
    index.delete([str(i) for i in range(1000)])
    index.vacuum()
    index.close()
    with FolderIndex.open(folder) as again:
        assert again.keys() == ["late"]


def test_an_empty_index_works(index):
    assert index.search(np.eye(3)) == [[], [], []]
    assert index.search(np.eye(3), where={"any": 1}) == [[], [], []]
    assert (index.keys(), index.count(), index.delete(["a"]), index.get([])) == ([], 0, 0, [])
    index.add([], np.empty((0, 3)))
    index.vacuum()
    assert str(index.plan()) == "exact search over 0 vectors: every vector is compared"


@pytest.mark.parametrize(
    ("keys", "vectors", "kwargs", "line"),
    [
        (["x"], np.ones((1, 3)), {}, "the key 'x' is already in the index: use upsert"),
        (["a", "b", "a"], np.ones((3, 3)), {}, "the key 'a' is given twice"),
        (["a"], np.ones((1, 4)), {}, r"shape \(1, 4\) do not fit: this index holds vectors of 3"),
        (["a"], np.ones((1, 3, 1)), {}, "do not fit"),
        (["a", "b"], np.ones((1, 3)), {}, "1 vectors were given for 2 keys"),
        (["a", "b"], np.array([[1, 0, 0], [1, np.nan, 0]]), {}, "the vector of 'b' holds NaN or infinity"),
        (["a", "b"], np.array([[1, 0, 0], [0, 0, 0]]), {}, "the vector of 'b' is all zeros"),
        (["a"], np.ones((1, 3)), {"metadata": []}, "0 metadata were given for 1 keys"),
        (["a"], np.ones((1, 3)), {"texts": ["t", "u"]}, "2 texts were given for 1 keys"),
        (["a"], np.ones((1, 3)), {"metadata": [{"when": object()}]}, "the metadata of 'a' is not JSON"),
        (["a"], np.ones((1, 3)), {"metadata": [{"size": float("nan")}]}, "the metadata of 'a' is not JSON"),
        (["a\udcff"], np.ones((1, 3)), {}, "half a character"),
        (["a\0"], np.ones((1, 3)), {}, "zero byte"),
    ],
)
def test_bad_items_are_told_and_nothing_is_stored(index, keys, vectors, kwargs, line):
    _fill(index)
    with pytest.raises(UserError, match=line):
        index.add(keys, vectors, **kwargs)
    assert index.keys() == ["x", "y", "z", "xy"]


@pytest.mark.parametrize(
    ("query", "k", "line"),
    [
        (np.ones(4), 1, "this index holds vectors of 3 numbers"),
        (np.array([1.0, np.inf, 0]), 1, "the vector of query 0 holds NaN or infinity"),
        (np.zeros((2, 3)), 1, "the vector of query 0 is all zeros"),
        (np.ones(3), 0, "cannot look for the 0 nearest"),
    ],
)
def test_bad_queries_are_told(index, query, k, line):
    _fill(index)
    with pytest.raises(UserError, match=line):
        index.search(query, k=k)


def test_another_model_is_refused(index, folder):
    index.close()
    with pytest.raises(UserError, match="of the model 'clip-1', which cannot be compared with those of 'clip-2'"):
        FolderIndex.open(folder, model="clip-2")


def test_a_second_writer_is_refused_readers_are_not(index, folder):
    with pytest.raises(UserError, match="open for writing elsewhere"):
        FolderIndex.open(folder)
    with FolderIndex.open(folder, read_only=True) as reader, FolderIndex.open(folder, read_only=True) as other:
        _fill(index)
        assert reader.keys() == other.keys() == ["x", "y", "z", "xy"]
        index.vacuum()
        assert _found(reader, [1, 0, 0], k=1) == ["x"]
        with pytest.raises(UserError, match="open read-only"):
            reader.delete(["x"])
        with pytest.raises(UserError, match="open read-only"):
            reader.optimize()
    index.close()
    FolderIndex.open(folder).close()


def test_a_reader_needs_no_right_to_write(index, folder, monkeypatch):
    _fill(index)
    index.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with FolderIndex.open(folder, read_only=True) as reader:
        assert _found(reader, [1, 0, 0], k=1) == ["x"]
    assert sorted(file.name for file in folder.iterdir()) == [
        "index.json",
        "rows.sqlite",
        "vectors-0.f32",
        "writer.lock",
    ]


def test_places_that_are_no_index(tmp_path, index, folder):
    with pytest.raises(UserError, match="already holds an index"):
        FolderIndex.create(folder, dim=3, model="m")
    with pytest.raises(UserError, match="is not there; make one with `diptych index`"):
        FolderIndex.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds no index \(no index.json\)"):
        FolderIndex.open(tmp_path)
    with pytest.raises(UserError, match=r"holds other files \(photos\)"):
        FolderIndex.create(tmp_path, dim=3, model="m")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"making the index .* failed"):
        FolderIndex.create(tmp_path / "file", dim=3, model="m")
    with pytest.raises(UserError, match="1 or more numbers, not 0"):
        FolderIndex.create(tmp_path / "new", dim=0, model="m")


def _break_header(folder: Path) -> None:
    (folder / "index.json").write_text('{"format": 1, "dim"')


def _newer_header(folder: Path) -> None:
    header = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(header | {"format": 99}))


def _lose_table(folder: Path) -> None:
    (folder / "rows.sqlite").unlink()


def _break_table(folder: Path) -> None:
    (folder / "rows.sqlite").write_bytes(b"this is no database" * 300)


def _empty_table(folder: Path) -> None:
    (folder / "rows.sqlite").write_bytes(b"")


def _lose_vectors(folder: Path) -> None:
    (folder / "vectors-0.f32").unlink()


def _cut_vectors(folder: Path) -> None:
    os.truncate(folder / "vectors-0.f32", 4 * 3 * 2 + 5)


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (_break_header, "is damaged: index.json cannot be read; restore"),
        (_newer_header, "has format 99, this diptych reads up to 2: upgrade"),
        (_lose_table, "is damaged: rows.sqlite is missing"),
        (_break_table, "is damaged: rows.sqlite cannot be read"),
        (_empty_table, "is damaged: rows.sqlite cannot be read"),
        (_lose_vectors, "is damaged: the file of vectors is missing"),
        (_cut_vectors, "is damaged: vectors-0.f32 holds 2 of 4 vectors"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_damage_is_told(index, folder, harm, line, read_only):
    _fill(index)
    index.close()
    harm(folder)
    with pytest.raises(UserError, match=line):
        FolderIndex.open(folder, read_only=read_only)


_FULL_DISK = """
import resource, sys
import numpy as np
from diptych.core.errors import UserError
from diptych.search.folder import FolderIndex

index = FolderIndex.create(sys.argv[1], dim=64, model="m")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
stored = 0
try:
    while True:
        keys = [f"{stored}-{i}" for i in range(20)]
        index.add(keys, np.ones((20, 64)), texts=["t" * int(sys.argv[3])] * 20)
        stored += 1
except UserError as error:
    print(error)
try:
    index.vacuum()
except UserError as error:
    print(error)
print(stored, len(index), len(index.search(np.ones(64), k=10**6)[0]))
"""


@pytest.mark.parametrize(("room", "text"), [(100_000, 1), (300_000, 2000)])
def test_a_full_disk_loses_nothing(folder, room, text):
    """Once the vectors do not fit, once the table does not: what a limit on the size of files does looks the same."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(folder), str(room), str(text)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("adding to the index")
    assert lines[0].endswith("nothing was changed, all that was stored before is safe")
    stored, count, found = map(int, lines[-1].split())
    assert stored > 0
    assert count == found == 20 * stored
    with FolderIndex.open(folder) as again:
        assert len(again) == count
        again.add(["after"], np.ones((1, 64)))
        assert len(again) == count + 1


def test_what_a_commit_that_fails_leaves_is_not_seen(index, folder, monkeypatch):
    _fill(index)

    def fail(_, rows):
        raise sqlite3.OperationalError("made to fail")

    monkeypatch.setattr("diptych.search.catalog.Catalog.insert", fail)
    with pytest.raises(UserError, match="the database says made to fail; nothing"):
        index.upsert(["x", "w"], np.ones((2, 3)))
    assert (folder / "vectors-0.f32").stat().st_size == 6 * 12  # vectors that nothing names
    assert index.keys() == ["x", "y", "z", "xy"]
    assert _found(index, [1, 0, 0], k=1) == ["x"]
    index.close()
    FolderIndex.open(folder).close()
    assert (folder / "vectors-0.f32").stat().st_size == 4 * 12
