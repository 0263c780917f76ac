"""Loader: the batches of an epoch, the same however many threads make them and wherever one starts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Event

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.data.images import BadPicture, decode
from diptych.data.source import Problem, Row, Source

_CROP, _MAKE = 0, 1  # what the random numbers of an example are for


@dataclass(frozen=True)
class Example:
    """One row of a batch to be: its number in the source, its text and, if asked for, its pixels in [0, 255].

    `rng` is the example's own: a function of the loader's seed, the epoch and the row, whatever else is in the batch.
    """

    index: int
    row: Row
    image: UInt8[Tensor, "3 s s"] | None
    seed: int
    epoch: int

    @cached_property
    def rng(self) -> np.random.Generator:
        """The random numbers of this row in this epoch, made when first asked for."""
        return np.random.default_rng((self.seed, self.epoch, self.index, _MAKE))


class Loader:
    """Batches of a source, exact and without state.

    All randomness is a function of (seed, epoch, row), and a batch is made as a whole by one thread, so that neither
    the number of threads nor the batch one starts from changes a bit. Rank r of w gets the r-th part of each global
    batch of `w * batch_size` rows: the parts of all ranks in rank order are the batch of one process.

    Training (`shuffle`) puts in the place of a picture that cannot be read the next readable row of the epoch's order;
    otherwise it is left out. Both are listed in `skipped`, as far as the batches were handed out.

    Args:
        source: where rows and pictures come from.
        rows: numbers of the rows to load, such as `source.rows("train")`.
        make: collates examples to a batch; called in a thread, so it must not change anything.
        batch_size: examples in a batch of this process.
        seed: 0 or more.
        shuffle: a new order each epoch, for training.
        drop_last: leave out the last, smaller batch; as `shuffle` when None.
        workers: threads that make batches; 0 makes them in the caller's.
        rank: number of this process of `world`.
        world: how many processes share each global batch.
        size: side of the pictures in pixels.
        crop: "squash", "center" or "random".
        pictures: False leaves every picture unread and `Example.image` None, as for cached features.
    """

    def __init__(
        self,
        source: Source,
        rows: Int[np.ndarray, " n"],
        make: Callable[[list[Example]], Batch],
        *,
        batch_size: int,
        size: int = 64,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool | None = None,
        workers: int = 2,
        rank: int = 0,
        world: int = 1,
        crop: str = "squash",
        pictures: bool = True,
    ) -> None:
        self.source, self.make = source, make
        self.rows = rows.astype(np.int64)
        self.batch_size, self.seed, self.shuffle, self.workers = batch_size, seed, shuffle, workers
        self.drop_last = shuffle if drop_last is None else drop_last
        self.rank, self.world = rank, world
        self.size, self.crop, self.pictures = size, crop, pictures
        self.skipped: list[Problem] = []
        self._listed: set[int] = set()
        self._bounds = self._cut(len(self.rows))

    def __len__(self) -> int:
        """Count the batches of an epoch, the same on every rank."""
        return len(self._bounds) - 1

    def order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        """Return the rows in the order in which an epoch visits them, over all ranks."""
        if not self.shuffle:
            return self.rows
        return np.random.default_rng((self.seed, epoch)).permutation(self.rows)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Make the batches of an epoch from batch `start` on; closing the iterator early stops its threads.

        Raises:
            UserError: when `start` lies behind the last batch, or no picture at all can be read in training.
        """
        if not 0 <= start <= len(self):
            raise UserError(f"cannot start at batch {start}: an epoch has {len(self)} (was the data changed?)")
        return self._batches(_Epoch(self, epoch), start)

    def _cut(self, rows: int) -> list[int]:
        """Return where each global batch begins; the last number is where the last one ends."""
        whole = self.batch_size * self.world
        if self.drop_last and not rows:
            raise UserError("there are no rows to train on; is there a split named train?")
        if self.drop_last and rows < whole:
            shared = f" in each of {self.world} processes" if self.world > 1 else ""
            raise UserError(
                f"batch size {self.batch_size}{shared} is more than the {rows:,} rows there are; "
                f"use at most {rows // self.world}"
            )
        bounds = list(range(0, rows + 1, whole))
        left = rows - bounds[-1]
        if left and not self.drop_last:
            if left >= self.world:
                bounds.append(rows)
            elif len(bounds) > 1:  # too few for every rank to get one: they join the batch before
                bounds[-1] = rows
            else:
                raise UserError(f"{rows} rows are too few for {self.world} processes; use at most {rows}")
        return bounds

    def _batches(self, epoch: _Epoch, start: int) -> Iterator[Batch]:
        for batch, problems in self._ahead(epoch, start) if self.workers else map(epoch.batch, range(start, len(self))):
            for row, problem in problems:
                if row not in self._listed:
                    self._listed.add(row)
                    self.skipped.append(problem)
            if batch is not None:
                yield batch

    def _ahead(self, epoch: _Epoch, start: int) -> Iterator[_Made]:
        """Make batches in threads, at most `workers + 1` ahead of the one that is used."""
        waiting: deque[Future[_Made]] = deque()
        own = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.workers, "diptych-loader", initializer=torch.set_num_threads, initargs=(1,))
        try:
            for number in range(start, len(self)):
                waiting.append(pool.submit(epoch.batch, number))
                if len(waiting) > self.workers + 1:
                    yield _result(waiting, own)
            while waiting:
                yield _result(waiting, own)
        finally:
            epoch.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)


_Made = tuple[Batch | None, list[tuple[int, Problem]]]


def _result(waiting: deque[Future[_Made]], own: int) -> _Made:
    made = waiting.popleft().result()
    # What a thread sets for itself (one thread in each worker) torch also takes for every thread that has not computed
    # yet, the caller's among them: so its own number, asked before the workers began, is set again.
    torch.set_num_threads(own)
    return made


class _Epoch:
    """One epoch's order, and the making of any of its batches."""

    def __init__(self, loader: Loader, epoch: int) -> None:
        self.loader, self.number = loader, epoch
        self.order = loader.order(epoch)
        self.stopped = Event()

    def batch(self, number: int) -> _Made:
        loader = self.loader
        first, last = loader._bounds[number], loader._bounds[number + 1]
        part = np.array_split(np.arange(first, last), loader.world)[loader.rank]
        examples: list[Example] = []
        problems: list[tuple[int, Problem]] = []
        for place in part.tolist():
            if self.stopped.is_set():
                return None, []
            example = self._example(place, problems)
            if example is not None:
                examples.append(example)
        return (loader.make(examples) if examples else None), problems

    def _example(self, place: int, problems: list[tuple[int, Problem]]) -> Example | None:
        tries = len(self.order) if self.loader.shuffle else 1
        for step in range(tries):
            index = int(self.order[(place + step) % len(self.order)])
            row = self.loader.source.row(index)
            try:
                return Example(index, row, self._image(index), self.loader.seed, self.number)
            except BadPicture as error:
                problems.append((index, Problem(row.key, str(error))))
        if self.loader.shuffle:
            raise UserError(
                f"none of the {tries:,} pictures can be read; {problems[0][1].where}: {problems[0][1].what}"
            )
        return None

    def _image(self, index: int) -> UInt8[Tensor, "3 s s"] | None:
        loader = self.loader
        if not loader.pictures:
            return None
        random = loader.crop == "random"
        rng = np.random.default_rng((loader.seed, self.number, index, _CROP)) if random else None
        return decode(loader.source.picture(index), size=loader.size, crop=loader.crop, rng=rng)
