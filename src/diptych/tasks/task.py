"""Task: what to learn from which batches, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model


@runtime_checkable
class Batches(Protocol):
    """A split of the data, cut into batches; the same epoch always gives the same batches."""

    @property
    def batch_size(self) -> int:
        """Examples in a full batch of this process."""

    def __len__(self) -> int:
        """Count the batches of an epoch, the same on every process."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch from batch `start` on, exactly as if it had been read from the beginning."""


@runtime_checkable
class Skipping(Protocol):
    """Batches that leave out what cannot be read and remember it."""

    @property
    def skipped(self) -> Sequence[object]:
        """Everything left out so far."""


Evaluator: TypeAlias = Callable[[Model, Iterable[Batch]], dict[str, float]]
"""Scores of a model on some batches, by flat names such as `image_to_text/r@1`."""


@dataclass(frozen=True, slots=True)
class Task:
    """The data a model is built for and learns from, and the scores that judge it.

    Args:
        spec: facts about the data.
        train: what is learnt from.
        valid: what chooses the best weights; None keeps the last ones.
        test: what is looked at once, at the end.
        evaluators: each gives some of the scores.
        monitor: the score, measured on `valid`, whose *largest* value marks the best weights; it may be negative.
    """

    spec: DataSpec
    train: Batches
    valid: Batches | None = None
    test: Batches | None = None
    evaluators: tuple[Evaluator, ...] = ()
    monitor: str = ""

    def split(self, name: str) -> Batches:
        """Return the batches of "train", "valid" or "test".

        Raises:
            UserError: when the task does not have them.
        """
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        found = splits.get(name)
        if found is None:
            has = ", ".join(key for key, value in splits.items() if value is not None)
            raise UserError(f"this task has no split {name!r} (it has: {has})")
        return found
