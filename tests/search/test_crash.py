from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from diptych.search.folder import FolderIndex

_WRITER = """
import sys
import numpy as np
from diptych.search.folder import FolderIndex

index = FolderIndex.open(sys.argv[1])
number = int(sys.argv[2])
while True:
    rng = np.random.default_rng(number)
    vectors = rng.standard_normal((200, 256))
    keys = [f"{number}-{i}" for i in range(200)]
    index.upsert(keys, vectors, metadata=[{"batch": number}] * 200, texts=keys)
    if number % 3 == 2:
        index.delete([f"{number - 1}-{i}" for i in range(200)])
    if number % 7 == 6:
        index.vacuum()
    print(number, flush=True)
    number += 1
"""


def _vectors(number: int) -> np.ndarray:
    vectors = np.random.default_rng(number).standard_normal((200, 256))
    return (vectors / np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]).astype(np.float32)


def _check(index: FolderIndex, acknowledged: int) -> None:
    """See that all batches that were acknowledged are whole and right, and that no batch is there in part."""
    count: dict[int, int] = {}
    for item in index.get(index.keys()):
        number, place = map(int, item.key.split("-"))
        count[number] = count.get(number, 0) + 1
        assert item.metadata == {"batch": number}
        assert item.text == item.key
        if place % 50 == 0:
            np.testing.assert_array_equal(item.vector, _vectors(number)[place])
    assert set(count.values()) <= {200}
    for number in count:
        assert len(index.matching(f"{number}-0", k=1)) == 1  # the words of a text come and go with its vector
    for number in range(acknowledged + 1):
        if number % 3 != 1:
            assert number in count
        elif number < acknowledged:  # the last one may or may not be deleted yet
            assert number not in count


def test_kill_9_in_the_middle_of_writing_loses_nothing_acknowledged(tmp_path):
    folder = tmp_path / "index"
    FolderIndex.create(folder, dim=256, model="m").close()
    rng, acknowledged = np.random.default_rng(0), -1
    for _ in range(3):
        command = [sys.executable, "-c", _WRITER, str(folder), str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            try:
                acknowledged = int(writer.stdout.readline())
                with FolderIndex.open(folder, read_only=True) as reader:  # reads while the other writes
                    _check(reader, acknowledged)
                    time.sleep(rng.uniform(0, 0.25))
            finally:
                writer.send_signal(signal.SIGKILL)
            acknowledged = int([acknowledged, *writer.stdout.read().splitlines()][-1])
        with FolderIndex.open(folder) as index:
            _check(index, acknowledged)
            assert len(index.search(np.ones(256), k=10**6)[0]) == len(index)


@pytest.mark.parametrize("stage", ["diptych.search.vectors.VectorFile.sync", "diptych.search.catalog.Catalog.renumber"])
def test_killed_at_the_worst_moments(tmp_path, stage):
    """The vectors are written, the table is not: inside an add, and inside a compaction."""
    code = """
import importlib, os, sys
import numpy as np
from diptych.search.folder import FolderIndex

index = FolderIndex.create(sys.argv[1], dim=4, model="m")
index.add(["a", "b", "c"], np.eye(4)[:3])
index.delete(["b"])
module, kind, name = sys.argv[2].rsplit(".", 2)
setattr(getattr(importlib.import_module(module), kind), name, lambda *_: os.kill(os.getpid(), 9))
index.vacuum() if name == "renumber" else index.upsert(["a", "d"], np.ones((2, 4)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "index"), stage], check=False)
    assert done.returncode == -signal.SIGKILL
    with FolderIndex.open(tmp_path / "index") as index:
        assert index.keys() == ["a", "c"]
        assert [item.vector.tolist() for item in index.get(["a", "c"])] == [[1, 0, 0, 0], [0, 0, 1, 0]]
        index.vacuum()
        assert len(list((tmp_path / "index").glob("vectors-*"))) == 1
        assert [hit.key for hit in index.search(np.eye(4)[2])[0]] == ["c", "a"]
