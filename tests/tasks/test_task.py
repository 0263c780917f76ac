from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.tasks.task import Batches, Skipping, Task


@dataclass
class Nothing:
    batch_size: int = 2

    def __len__(self) -> int:
        return 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter(())


@dataclass
class Skips(Nothing):
    skipped: tuple[str, ...] = ("a.jpg",)


def test_a_split_that_is_not_there_is_one_line():
    task = Task(DataSpec(), Nothing(), valid=Nothing())
    assert task.split("valid") is task.valid
    with pytest.raises(UserError, match=r"no split 'test' \(it has: train, valid\)"):
        task.split("test")


def test_batches_that_remember_what_they_left_out_are_known():
    batches: Batches = Skips()
    assert isinstance(batches, Skipping)
    assert not isinstance(Nothing(), Skipping)
