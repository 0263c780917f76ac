"""Meter: turns the numbers of single steps into lines of the log and into what the progress bar shows."""

from __future__ import annotations

import time
from collections.abc import Mapping

from diptych.train.log import Log
from diptych.train.progress import Display
from diptych.train.state import Place


class Meter:
    """Averages over the steps between two lines of the log; what is not written yet is part of the state of a run.

    Args:
        log: where the lines go.
        display: what the user sees.
        place: of the run, whose sums are kept here.
        every: steps between lines.
        epoch: batches in one.
    """

    def __init__(self, log: Log, display: Display, place: Place, *, every: int, epoch: int) -> None:
        self._log, self._display, self._place = log, display, place
        self._every, self._epoch = every, epoch
        self._began = time.monotonic() - place.seconds
        self._mark = time.monotonic()
        self._busy, self._examples = 0.0, 0
        self.stage = ""

    def step(self, values: dict[str, float], *, lr: float, examples: int, last: bool) -> None:
        """Count a step that has just been taken, of so many examples over all processes."""
        place, now = self._place, time.monotonic()
        self._busy, self._examples = self._busy + now - self._mark, self._examples + examples
        for name, value in values.items():
            place.sums[name] = place.sums.get(name, 0.0) + value
        place.summed += 1
        rate = self._examples / max(self._busy, 1e-9)
        loss = next(value for name, value in values.items() if name.endswith("loss"))
        self._display.step(place.stage_step, loss=loss, rate=rate)
        if place.step % self._every == 0 or last:
            means = {name: total / place.summed for name, total in place.sums.items()}
            self.line({**means, "lr": lr, "rate": round(rate, 1)})
            place.sums, place.summed = {}, 0
            self._busy, self._examples = 0.0, 0
        self._mark = time.monotonic()

    def line(self, values: Mapping[str, float | str]) -> None:
        """Write a line about this moment."""
        place = self._place
        place.seconds = time.monotonic() - self._began
        when = {"epoch": round(place.epoch + place.batch / self._epoch, 4), "time": round(place.seconds, 3)}
        self._log.write(place.step, {**when, **({"stage": self.stage} if self.stage else {}), **values})

    def rest(self) -> None:
        """Forget the time since the last step, which went into scores or saving."""
        self._place.seconds = time.monotonic() - self._began
        self._place.log_bytes = len(self._log)
        self._mark = time.monotonic()
