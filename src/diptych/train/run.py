"""Run: stage after stage, epoch after epoch, with scores, saves and an orderly end."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from diptych.core.batch import Batch
from diptych.core.errors import UserError, unknown
from diptych.core.model import Coupled, Model, Staged, Watchful
from diptych.core.runtime import rank, world
from diptych.tasks.task import Skipping, Task
from diptych.train.best import Best
from diptych.train.config import TrainConfig
from diptych.train.distributed import any_of, decided_by_first
from diptych.train.evaluation import evaluate
from diptych.train.gradients import Arithmetic, parts_see_each_other
from diptych.train.interrupt import Interrupt
from diptych.train.log import Log
from diptych.train.meter import Meter
from diptych.train.optim import rate
from diptych.train.progress import Display
from diptych.train.result import Result, Stopped
from diptych.train.saver import Saver
from diptych.train.state import Place, load_rest, load_weights_of
from diptych.train.step import NotFiniteError, Stepper


class Run:
    """One training, from wherever it begins to wherever it ends.

    Args:
        model: on its device.
        task: the data and the scores.
        config: how to train.
        place: where the run stands; it moves along.
        out: the run folder.
        device: of this process.
        log: of the first process; an empty one elsewhere.
        display: of the first process; a silent one elsewhere.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        config: TrainConfig,
        place: Place,
        *,
        out: Path,
        device: torch.device,
        log: Log,
        display: Display,
    ) -> None:
        self._model, self._task, self._config, self._place = model, task, config, place
        self._device, self._display, self._out = device, display, out
        self._arithmetic = Arithmetic.choose(device, config.precision)
        self._best = Best(out)
        self._meter = Meter(log, display, place, every=config.log_every, epoch=len(task.train))
        self._saver = Saver(out, config, device, saved=place.step or None)
        self._stages = model.stages() if isinstance(model, Staged) else ("",)
        self._total = 0
        self._skipped = 0

    def all(self, interrupt: Interrupt, start: Path | None, kept: Mapping[str, Any]) -> Result:
        """Go through the stages that are left.

        Args:
            interrupt: asked after each step.
            start: the state to go on from, or None.
            kept: what that state says of the best weights.
        """
        stopped: Stopped = "finished"
        for name in sorted({*self._config.stage_lr, *self._config.stage_epochs} - {*self._stages}):
            self._display.say(f"settings of the stage {name!r} are not used: this run has no such stage")
        for index in range(self._place.stage, len(self._stages)):
            stepper = self._enter(index, start)
            if start is not None:
                self._best.recall(kept)
                start = None
            stopped = self._learn(stepper, interrupt)
            self._keep_something(stepper)
            self._best.restore(self._model)
            if stopped == "interrupted":
                break
        place, best = self._place, self._best
        return Result(best.score, best.scores, place.step, place.seconds, stopped)

    def hand_over(self, model: Model) -> None:
        """Give the kept weights to a model, ready to be used; it may be another than the one that was sharded."""
        self._best.restore(model)
        model.eval()

    def _enter(self, index: int, start: Path | None) -> Stepper:
        """Prepare the model and what moves it for a stage, new or as it was."""
        place = self._place
        if isinstance(self._model, Staged):
            first = 0 if start is not None else index
            for stage in self._stages[first : index + 1]:
                self._model.enter(stage)
        if index > place.stage:
            place.stage, place.stage_step = index, 0
            place.epoch, place.batch = place.epoch + (place.batch > 0), 0
            self._best = Best(self._out)
        if start is not None:
            load_weights_of(start, self._model)
        self._model.train()
        stepper = Stepper(self._model, self._config, self._arithmetic)
        if start is not None:
            load_rest(start, stepper, self._device)
        self._meter.stage = self._stages[index]
        self._total = self._steps(self._stages[index])
        self._display.begin(self._stages[index] or "training", place.stage_step, self._total)
        if self._config.accumulate > 1 and isinstance(self._model, Coupled) and parts_see_each_other(self._model):
            self._display.say("batch normalisation sees one part of a batch at a time: accumulate is not exact here")
        return stepper

    def _steps(self, stage: str) -> int:
        """Count the steps of a stage."""
        epochs = self._config.stage_epochs.get(stage, self._config.epochs)
        return self._config.steps or math.ceil(epochs * len(self._task.train))

    def _learn(self, stepper: Stepper, interrupt: Interrupt) -> Stopped:
        """Take steps until the stage ends or somebody ends it."""
        place = self._place
        if self._tired():
            return "early"
        while place.stage_step < self._total:
            first, taken = place.batch, place.stage_step
            with closing(self._batches()) as batches:
                for batch in batches:
                    self._step(stepper, batch)
                    stopped = self._after(stepper, interrupt)
                    if stopped is not None:
                        return stopped
            if place.batch > 0:
                place.epoch, place.batch = place.epoch + 1, 0
            elif first == 0 and place.stage_step == taken:
                raise UserError("the training data gave no batch at all; look at it with `diptych check`")
        return "finished"

    def _batches(self) -> Generator[Batch]:
        """Give the rest of the epoch; when nobody wants more, its readers are told at once."""
        batches: Iterator[Batch] = self._task.train.epoch(self._place.epoch, self._place.batch)
        try:
            for batch in batches:
                yield batch.to(self._device)
        finally:
            if isinstance(batches, Generator):
                batches.close()

    def _step(self, stepper: Stepper, batch: Batch) -> None:
        place = self._place
        factor = self._config.stage_lr.get(self._stages[place.stage], 1.0)
        lr = factor * rate(place.stage_step, self._total, self._config)
        try:
            values = stepper.step(batch, lr)
        except NotFiniteError as error:
            self._saver.flush(self._best)
            raise UserError(
                f"stopped at step {place.step + 1}, epoch {place.epoch + 1}: {error}; {self._saver.kept()}; "
                f"try a smaller lr ({self._config.lr / 3:.2g}), a longer warmup, clip=1 or precision=fp32"
            ) from None
        place.step, place.stage_step, place.batch = place.step + 1, place.stage_step + 1, place.batch + 1
        if place.batch == len(self._task.train):
            place.epoch, place.batch = place.epoch + 1, 0
        last = place.stage_step >= self._total
        self._meter.step(values, lr=lr, examples=len(batch) * world(), last=last)
        self._warn(values)

    def _warn(self, values: Mapping[str, float]) -> None:
        """Say what a model that watches itself has to say, once until an epoch ends without that trouble."""
        if not isinstance(self._model, Watchful):
            return
        place = self._place
        told = self._model.trouble({name.rpartition("loss/")[2]: value for name, value in values.items()})
        if told and not place.warned:
            self._meter.line({"warning": told})
            self._display.say(f"warning, step {place.step}: {told}")
            place.warned = True
        elif place.warned and not told and place.batch == 0:
            self._meter.line({"warning": "the trouble is over"})
            place.warned = False

    def _after(self, stepper: Stepper, interrupt: Interrupt) -> Stopped | None:
        """Score and save where it is time, and tell why to stop, if so."""
        place, config = self._place, self._config
        last = place.stage_step >= self._total
        every = max(1, round(config.evaluate_every * len(self._task.train)))
        if last or (config.evaluate_every > 0 and place.stage_step % every == 0):
            self._score(stepper)
        if place.batch == 0 or last:
            self._count_skipped()
        tired = self._tired()
        asked, due = any_of([interrupt.asked, rank() == 0 and self._saver.due(place)], self._device)
        if asked or due or tired or last:
            self._meter.rest()
            self._saver.save(place, self._best, stepper)
        self._meter.rest()
        if last:
            return "finished"
        return "early" if tired else "interrupted" if asked else None

    def _tired(self) -> bool:
        return 0 < self._config.patience <= self._best.stale

    def _score(self, stepper: Stepper) -> None:
        """Score the weights, averaged ones where they are kept, and take them when they are the best."""
        task, best = self._task, self._best
        if task.valid is None or not task.evaluators:
            return
        with self._averaged(stepper):
            with stepper.replica.whole():
                own = evaluate(self._model, task.valid, task.evaluators, self._device)
            scores: dict[str, float] = decided_by_first(lambda: own, self._device)
            watched = self._watched(scores)
            if watched is None:
                best.scores = scores
            else:
                best.offer(watched, scores, self._model)
        self._meter.line({f"valid/{name}": value for name, value in scores.items()})
        self._display.score(_told(scores, task.monitor if watched is not None else "", best.score))

    def _watched(self, scores: dict[str, float]) -> float | None:
        """Return the score to maximise; an early stage, judged by other scores, may lack it and keeps its last weights.

        Raises:
            UserError: when no evaluator gives it.
        """
        name = self._task.monitor
        if not name or (name not in scores and self._place.stage < len(self._stages) - 1):
            return None
        if name not in scores:
            raise unknown("score to watch", name, scores)
        return scores[name]

    def _averaged(self, stepper: Stepper) -> AbstractContextManager[None]:
        return nullcontext() if stepper.ema is None else stepper.ema.used()

    def _keep_something(self, stepper: Stepper) -> None:
        """Make sure that the folder holds weights: the best ones, or the last where nothing chose between them."""
        if not self._best.kept:
            with self._averaged(stepper):
                self._best.offer(None, self._best.scores, self._model)
        self._saver.flush(self._best)

    def _count_skipped(self) -> None:
        """Say how many examples could not be read, when that has changed."""
        data = self._task.train
        if isinstance(data, Skipping) and len(data.skipped) > self._skipped:
            self._skipped = len(data.skipped)
            self._meter.line({"skipped": float(self._skipped)})
            self._display.say(f"{self._skipped} examples could not be read and were left out so far")


def _told(scores: Mapping[str, float], monitor: str, best: float | None) -> str:
    """Say the watched score, or the first one, in few letters: `r@1 0.2534, best 0.2610`."""
    name = monitor or next(iter(scores), "")
    if not name:
        return ""
    text = f"{name.rpartition('/')[2]} {scores[name]:.4f}"
    return text if best is None else f"{text}, best {best:.4f}"
