"""Beside: batches of two loaders put one below the other, as labelled pictures and pictures of another domain."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import fields

import torch
from torch import Tensor

from diptych.core.batch import Batch, States
from diptych.data.loader import Loader
from diptych.data.source import Problem


class Beside:
    """An epoch of the first loader, each batch with the next one of the second, which goes on through its own epochs.

    Args:
        first: decides how long an epoch is.
        second: as many batches of it are read, over and over if need be.
    """

    def __init__(self, first: Loader, second: Loader) -> None:
        self.first, self.second = first, second

    @property
    def batch_size(self) -> int:
        """Examples in a batch of this process, of both together."""
        return self.first.batch_size + self.second.batch_size

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return len(self.first)

    @property
    def skipped(self) -> list[Problem]:
        """Pictures that could not be read."""
        return [*self.first.skipped, *self.second.skipped]

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Give the batches of an epoch from batch `start` on; closing the iterator early stops the threads."""
        more = self._endless(epoch * len(self.first) + start)
        with closing(more), closing(_generator(self.first.epoch(epoch, start))) as batches:
            for batch in batches:
                yield joined(batch, next(more))

    def _endless(self, place: int) -> Generator[Batch]:
        """Give the second loader's batches from the `place`-th on, counted over its epochs."""
        epoch, start = divmod(place, len(self.second))
        while True:
            with closing(_generator(self.second.epoch(epoch, start))) as batches:
                yield from batches
            epoch, start = epoch + 1, 0


def _generator(batches: Iterator[Batch]) -> Generator[Batch]:
    assert isinstance(batches, Generator)
    return batches


def joined(one: Batch, other: Batch) -> Batch:
    """Put the rows of two batches below each other, as far as both have a field; states are those of summaries."""
    values: dict[str, Tensor | States] = {}
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, States) and isinstance(b, States):
            pairs = ((a.tokens, b.tokens), (a.mask, b.mask), (a.summary, b.summary))
            values[field.name] = States(*(torch.cat(pair) for pair in pairs))
        elif isinstance(a, Tensor) and isinstance(b, Tensor):
            values[field.name] = torch.cat([a, b])
    return Batch(**values)  # type: ignore[arg-type]
