"""Dynamic batching: what several requests ask of the model at about the same time is computed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Job(Generic[In, Out]):
    """Items of one request, and the promise of their results."""

    items: Sequence[In]
    done: asyncio.Future[list[Out]]


class Batcher(Generic[In, Out]):
    """Collects jobs while the worker is busy, then gives it as many as it takes at once.

    Args:
        compute: from a list of items to as many results, in their order; one that is an exception fails its request
            alone. Called in `worker`.
        worker: where to compute; of one thread when the model is not to be used by two.
        most: items of a batch at most.
        wait: seconds that a job which finds the worker idle waits for others.
        counted: told the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[In]], Sequence[Out | Exception]],
        worker: Executor,
        *,
        most: int,
        wait: float,
        counted: Callable[[int], object] = int,
    ) -> None:
        self._compute, self._worker = compute, worker
        self._most, self._wait, self._counted = most, wait, counted
        self._queue: asyncio.Queue[Job[In, Out]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve, in the running event loop."""
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Leave what still waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """Count the jobs that no batch has taken yet."""
        return self._queue.qsize()

    async def __call__(self, items: Sequence[In]) -> list[Out]:
        """Return the results of items, in their order.

        More of them than fit into a batch go in pieces, one after another, so that others are served in between.
        """
        found: list[Out] = []
        for start in range(0, len(items), self._most):
            done: asyncio.Future[list[Out]] = asyncio.get_running_loop().create_future()
            self._queue.put_nowait(Job(items[start : start + self._most], done))
            found += await done
        return found

    async def _serve(self) -> None:
        kept: Job[In, Out] | None = None
        while True:
            jobs = [kept or await self._queue.get()]
            if self._wait > 0 and self._queue.empty():
                await asyncio.sleep(self._wait)
            kept = self._collect(jobs)
            live = [job for job in jobs if not job.done.done()]  # who gave up is not computed for
            if live:
                await self._work(live)

    def _collect(self, jobs: list[Job[In, Out]]) -> Job[In, Out] | None:
        """Take more jobs as long as they fit; return the first that does not, for the next batch."""
        size = len(jobs[0].items)
        while not self._queue.empty():
            job = self._queue.get_nowait()
            size += len(job.items)
            if size > self._most:
                return job
            jobs.append(job)
        return None

    async def _work(self, jobs: list[Job[In, Out]]) -> None:
        items = [item for job in jobs for item in job.items]
        self._counted(len(items))
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._worker, self._compute, items)
        except Exception as error:
            results = [error] * len(items)
        start = 0
        for job in jobs:
            _settle(job, results[start : start + len(job.items)])
            start += len(job.items)


def _settle(job: Job[In, Out], results: Sequence[Out | Exception]) -> None:
    if job.done.done():
        return
    failed = next((one for one in results if isinstance(one, Exception)), None)
    if failed is not None:
        job.done.set_exception(failed)
        return
    job.done.set_result([one for one in results if not isinstance(one, Exception)])
