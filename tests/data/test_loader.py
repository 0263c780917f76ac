from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.data.images import BadPicture
from diptych.data.loader import Example, Loader
from diptych.data.source import Row, Source


class Numbers(Source):
    """Row i shows a picture of shade i; some rows cannot be read."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.name, self.problems, self.count, self.bad = "numbers", [], count, bad
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def row(self, index: int) -> Row:
        return Row(f"p{index}", (f"number {index}", "a number"), "train")

    def picture(self, index: int) -> np.ndarray | bytes:
        self.reads.append(index)
        if index in self.bad:
            return b"broken"
        shade = np.arange(12, dtype=np.uint8)[None, :, None] + np.full((10, 1, 3), index % 200, np.uint8)
        return np.ascontiguousarray(shade)

    def splits(self) -> np.ndarray:
        return np.zeros(self.count, np.uint8)

    def fingerprint(self) -> str:
        return str(self.count)


def make(examples: list[Example]) -> Batch:
    images = [example.image for example in examples]
    return Batch(
        image=torch.stack(images) if images[0] is not None else None,
        pair_id=torch.tensor([example.index for example in examples]),
        label=torch.tensor([int(example.rng.integers(1000)) for example in examples]),
    )


def loader(source: Source, rows: np.ndarray | None = None, **options: object) -> Loader:
    settings: dict[str, object] = {"batch_size": 4, "size": 8, "crop": "random", "shuffle": True, "seed": 3} | options
    return Loader(source, source.rows() if rows is None else rows, make, **settings)


def ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.pair_id.tolist() for batch in batches]


def flat(parts: list[list[int]]) -> list[int]:
    return [index for part in parts for index in part]


def same(one: list[Batch], other: list[Batch]) -> bool:
    names = ("image", "pair_id", "label")
    return len(one) == len(other) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for a, b in zip(one, other, strict=True) for name in names
    )


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_bits_do_not_depend_on_workers_or_start(workers: int) -> None:
    expected = list(loader(Numbers(23, bad=(3, 4, 17)), workers=0).epoch(2))
    assert len(expected) == 5
    for start in range(6):
        assert same(list(loader(Numbers(23, bad=(3, 4, 17)), workers=workers).epoch(2, start)), expected[start:])


def test_epochs_and_seeds_differ() -> None:
    first, second = (list(loader(Numbers(24)).epoch(epoch)) for epoch in (0, 1))
    assert ids(first) != ids(second)
    assert sorted(flat(ids(first))) == sorted(flat(ids(second))) == list(range(24))
    assert ids(first) != ids(list(loader(Numbers(24), seed=4).epoch(0)))
    # the crop and the draws of a row differ between epochs too, and rows draw differently
    labels = {tuple(sorted(zip(b.pair_id.tolist(), b.label.tolist(), strict=True))) for b in first + second}
    assert len(labels) == 12
    assert len({label for b in first for label in b.label.tolist()}) > 15


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_each_global_batch(world: int, shuffle: bool) -> None:
    source = Numbers(27, bad=(5,)) if shuffle else Numbers(27)
    whole = list(loader(source, batch_size=2 * world, shuffle=shuffle).epoch(1))
    ranks = [loader(source, batch_size=2, world=world, rank=r, shuffle=shuffle) for r in range(world)]
    assert len({len(one) for one in ranks}) == 1
    parts = [list(one.epoch(1)) for one in ranks]
    for number, batch in enumerate(whole):
        joined = [torch.cat([getattr(part[number], name) for part in parts]) for name in ("image", "pair_id", "label")]
        assert torch.equal(joined[0], batch.image)
        assert torch.equal(joined[1], batch.pair_id)
        assert torch.equal(joined[2], batch.label)


def test_a_rest_smaller_than_the_world_joins_the_batch_before() -> None:
    ranks = [loader(Numbers(13), batch_size=2, world=3, rank=r, shuffle=False) for r in range(3)]
    assert [len(one) for one in ranks] == [2, 2, 2]
    assert [ids(list(one.epoch(0))) for one in ranks] == [[[0, 1], [6, 7, 8]], [[2, 3], [9, 10]], [[4, 5], [11, 12]]]
    with pytest.raises(UserError, match="2 rows are too few for 3 processes"):
        loader(Numbers(2), world=3, shuffle=False)


def test_in_training_a_bad_picture_gives_way_to_the_next_readable_row() -> None:
    source = Numbers(12, bad=(2, 7))
    one = loader(source, workers=2)
    order = one.order(0).tolist()
    expected = []
    for place in range(12):
        while order[place % 12] in source.bad:
            place += 1
        expected.append(order[place % 12])
    assert flat(ids(list(one.epoch(0)))) == expected
    assert sorted(problem.where for problem in one.skipped) == ["p2", "p7"]
    assert all("not a picture" in problem.what for problem in one.skipped)
    list(one.epoch(1))
    assert len(one.skipped) == 2  # listed once


def test_in_evaluation_a_bad_picture_is_left_out() -> None:
    one = loader(Numbers(10, bad=(0, 1, 2, 3, 9)), shuffle=False)
    assert len(one) == 3
    assert ids(list(one.epoch(0))) == [[4, 5, 6, 7], [8]]
    assert [problem.where for problem in one.skipped] == ["p0", "p1", "p2", "p3", "p9"]


def test_skipped_lists_only_what_was_handed_out() -> None:
    one = loader(Numbers(40, bad=(1, 30)), shuffle=False, workers=2)
    batches = one.epoch(0)
    next(batches)
    assert [problem.where for problem in one.skipped] == ["p1"]
    batches.close()


def test_pictures_need_not_be_read() -> None:
    source = Numbers(9, bad=(1,))
    batches = list(loader(source, pictures=False, drop_last=False).epoch(0))
    assert sorted(flat(ids(batches))) == list(range(9))
    assert all(batch.image is None for batch in batches)
    assert source.reads == []


def workers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("diptych-loader")]


def test_closing_early_stops_the_threads_soon() -> None:
    class Slow(Numbers):
        def picture(self, index: int) -> np.ndarray | bytes:
            time.sleep(0.1 if index >= 100 else 0)
            return super().picture(index)

    batches = loader(Slow(4000), batch_size=100, workers=3, shuffle=False).epoch(0)
    next(batches)
    assert len(workers_alive()) == 3
    before = time.monotonic()
    batches.close()
    assert time.monotonic() - before < 5  # a batch takes 10 seconds
    assert workers_alive() == []


def test_prefetch_is_bounded() -> None:
    source = Numbers(400)
    batches = loader(source, workers=2).epoch(0)
    next(batches)
    time.sleep(0.2)
    assert len(source.reads) <= 4 * 5
    batches.close()


def failing(error: Exception) -> Callable[[list[Example]], Batch]:
    def fail(examples: list[Example]) -> Batch:
        if len(examples) and examples[0].index == 8:
            raise error
        return make(examples)

    return fail


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_reaches_the_caller(workers: int) -> None:
    source = Numbers(40)
    one = Loader(source, source.rows(), failing(RuntimeError("boom")), batch_size=4, size=8, workers=workers)
    batches = one.epoch(0)
    assert ids([next(batches), next(batches)]) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(RuntimeError, match="boom"):
        next(batches)
    assert workers_alive() == []


def test_an_error_of_the_source_is_not_swallowed() -> None:
    class Broken(Numbers):
        def picture(self, index: int) -> np.ndarray | bytes:
            if index == 2:
                raise BadPicture("gone")
            if index == 6:
                raise OSError("disk on fire")
            return super().picture(index)

    one = loader(Broken(8), shuffle=False)
    with pytest.raises(OSError, match="disk on fire"):
        list(one.epoch(0))
    assert [(problem.where, problem.what) for problem in one.skipped] == [("p2", "gone")]


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="batch size 4 is more than the 3 rows there are; use at most 3"):
        loader(Numbers(3))
    with pytest.raises(UserError, match=r"batch size 4 in each of 2 processes is more than the 7 rows .* at most 3"):
        loader(Numbers(7), world=2)
    with pytest.raises(UserError, match="no rows to train on"):
        loader(Numbers(3), np.zeros(0, np.int64))
    with pytest.raises(UserError, match="cannot start at batch 9: an epoch has 2"):
        loader(Numbers(8)).epoch(0, 9)
    with pytest.raises(UserError, match=r"none of the 8 pictures can be read; p.: not a picture"):
        list(loader(Numbers(8, bad=tuple(range(8)))).epoch(0))
    assert len(loader(Numbers(0), shuffle=False)) == 0
    assert ids(list(loader(Numbers(3), shuffle=False).epoch(0))) == [[0, 1, 2]]


def test_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    list(loader(Numbers(24), workers=2).epoch(0))
    seen: list[int] = []
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert [torch.get_num_threads(), *seen] == [before, before]


def test_reading_in_threads_leaves_the_callers_arithmetic_its_threads():
    code = """
import torch
from diptych.core.batch import Batch
from diptych.data.loader import Loader
from diptych.data.scenes import open_scenes
source = open_scenes("scenes:40")
make = lambda examples: Batch(label=torch.zeros(len(examples)).long())
for _ in Loader(source, source.rows(), make, batch_size=8, workers=2).epoch(0):
    pass
print(torch.get_num_threads())
"""
    before, after = (
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
        for text in ("import torch; print(torch.get_num_threads())", code)
    )
    assert after == before
