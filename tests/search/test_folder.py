from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
