"""One run of a comparison: trained, scored and measured, or told why not."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from diptych import tasks
from diptych.core.abilities import abilities
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.report.card import write_card
from diptych.search.lock import WriterLock
from diptych.tasks.data import TaskData
from diptych.train.checkpoint import RECORD
from diptych.train.distributed import processes
from diptych.train.experiment import SCORES, OpenRun, load_run, prepare, run
from diptych.train.files import read_json, write_json
from diptych.train.memory import PeakMemory
from diptych.train.outcome import Outcome, finite, mean_rate, parameters, read_outcome
from diptych.train.plan import Plan

PATIENCE = 30.0
"""Seconds to wait for another process that trains the same run; one that lost its parent saves and ends within them."""


@dataclass(frozen=True, slots=True)
class Data:
    """The data of a comparison, as it was named."""

    named: str
    image_column: str | None = None
    caption_column: str | None = None
    split_column: str | None = None
    label_column: str | None = None
    image_folder: str | None = None

    def open(self) -> Source:
        """Open it."""
        return open_data(
            self.named,
            image_column=self.image_column,
            caption_column=self.caption_column,
            split_column=self.split_column,
            label_column=self.label_column,
            image_folder=None if self.image_folder is None else Path(self.image_folder),
        )

    def options(self) -> dict[str, str]:
        """Return what else was said of it, as options of the command line."""
        known = {key: value for key, value in asdict(self).items() if key != "named" and value is not None}
        return {f"--{key.replace('_', '-')}": str(value) for key, value in known.items()}


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a comparison.

    Args:
        name: of the contestant.
        plan: with the run's seed.
        folder: of the run, `OUT/NAME/seed-K`.
        named: what the data was called.
        command: that makes this run by itself, for its record.
        again: what to type to go on with the comparison.
        beside: runs at the same time.
    """

    name: str
    plan: Plan
    folder: Path
    named: str = ""
    command: str = ""
    again: str = ""
    beside: int = 1

    @property
    def title(self) -> str:
        """Name and seed, for people."""
        return f"{self.name}, seed {self.plan.train.seed}"

    @property
    def log(self) -> Path:
        """The file that gets what the run says, when it is not said aloud."""
        return self.folder.with_suffix(".log")

    def finished(self) -> Outcome | None:
        """Return its outcome when it ended with scores."""
        found = read_outcome(self.folder)
        return None if found is None or found.failed else found


def compete(job: Job, source: Source) -> Outcome | None:
    """Train and score one run, as far as that is not done yet; what goes wrong is an outcome too.

    Returns:
        None when the training was interrupted; it goes on when asked again.
    """
    with _alone(job):
        done = job.finished()
        if done is not None:
            return done
        try:
            found = _scored(job, source) if _is_trained(job.folder) else _trained(job, source)
            if found is not None and not finite(found.scores):
                found = replace(found, scores={}, failed="its scores are not numbers")
        except UserError as error:
            found = Outcome(job.plan.train.seed, failed=" ".join(str(error).split()))
        except Exception as error:  # whatever one system does, the others shall have their turn
            traceback.print_exc()
            first = str(error).strip().partition("\n")[0]
            found = Outcome(job.plan.train.seed, failed=f"{type(error).__name__}: {first}")
        if found is not None:
            found.write(job.folder)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Keep other processes from training in the same folder; wait for one that is about to end."""
    place = job.folder.parent.parent / ".running" / f"{job.name}-{job.plan.train.seed}"
    place.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            lock = WriterLock(place)
            break
        except UserError:
            if time.monotonic() > until:
                raise UserError(f"another process trains {job.folder}; wait for it to end, or stop it") from None
            time.sleep(0.3)
    try:
        yield
    finally:
        lock.release()


def _is_trained(folder: Path) -> bool:
    return (folder / RECORD).is_file() and read_json(folder / RECORD).get("result") is not None


def _trained(job: Job, source: Source) -> Outcome | None:
    """Train as `diptych train` does."""
    with processes(job.plan.train.device) as device:
        experiment = prepare(job.plan, source, out=job.folder, named=job.named, command=job.command)
        peak = PeakMemory(device)
        result, scores = run(experiment, out=job.folder, command=job.again)
        memory = peak.bytes()
    if result.stopped == "interrupted":
        return None
    model = experiment.model
    write_card(job.folder, scores=scores, left_out=experiment.left_out(), offers=abilities(model))
    return _outcome(job, model, experiment.data, scores, memory=memory, device=device.type)


def _scored(job: Job, source: Source) -> Outcome:
    """Score a run that was trained but not scored, because it was killed in between or was trained elsewhere."""
    opened, data = reopen(job, source)
    scores: dict[str, float] = {}
    if (job.folder / SCORES).is_file():
        scores = read_json(job.folder / SCORES)["test"]
    elif len(source.rows("test")):
        with processes(job.plan.train.device) as device:
            scores = data.scores(opened.model.to(device), "test")
        write_json(job.folder / SCORES, {"test": scores})
    return _outcome(job, opened.model, data, scores)


def reopen(job: Job, source: Source) -> tuple[OpenRun, TaskData]:
    """Open a trained run and join it to its data again; what frozen towers made of the data is found in the cache."""
    opened, train = load_run(job.folder), job.plan.train
    kind = tasks.load(job.plan.model.learns)
    data = kind.join(
        source, opened.model, opened.tokenizer, opened.spec, job.plan.data, seed=train.seed, device=train.device
    )
    return opened, data


def _outcome(
    job: Job,
    model: Model,
    data: TaskData,
    scores: Mapping[str, float],
    *,
    memory: int | None = None,
    device: str = "",
) -> Outcome:
    """Gather what a trained run came to; without a test split its scores are those on dev."""
    result = read_json(job.folder / RECORD)["result"]
    every, trained = parameters(model)
    return Outcome(
        seed=job.plan.train.seed,
        scores=dict(scores) or result["scores"],
        split="test" if scores else "dev",
        monitor=data.judge(model).monitor,
        parameters=every,
        trained=trained,
        seconds=result["seconds"],
        rate=mean_rate(job.folder),
        memory=memory,
        steps=result["steps"],
        device=device,
        beside=job.beside,
    )


def compete_here(
    jobs: Sequence[Job], source: Source, *, quiet: bool = False, begin: Callable[[Job], None]
) -> Iterator[tuple[Job, Outcome | None]]:
    """Run jobs one after another in this process.

    Args:
        jobs: in order.
        source: the data.
        quiet: put what a run says into its log file instead of on the screen.
        begin: told before each.

    Yields:
        Each job with its outcome, None when it was interrupted.
    """
    for job in jobs:
        begin(job)
        if not quiet:
            yield job, compete(job, source)
            continue
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            found = compete(job, source)
        yield job, found
