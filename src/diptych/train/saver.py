"""Saver: when the state of a run is written, and what is said when it cannot be."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from diptych.train.best import Best
from diptych.train.config import TrainConfig
from diptych.train.distributed import decided_by_first
from diptych.train.files import disk_trouble
from diptych.train.state import Place, collect_state
from diptych.train.step import Stepper

_SHARE = 0.05


class Saver:
    """Saves every so many steps or minutes, and at the ends of epochs as long as that takes little of the time.

    Args:
        out: the run folder.
        config: `save_every`, `save_minutes`.
        device: of this process.
        saved: the step of the state that is there already, if any.
    """

    def __init__(self, out: Path, config: TrainConfig, device: torch.device, *, saved: int | None) -> None:
        self._out, self._config, self._device = out, config, device
        self._saved = saved
        self._when, self._took = time.monotonic(), 0.0

    def due(self, place: Place) -> bool:
        """Tell whether it is time; the clocks of processes differ, so only the first one should be asked."""
        waited = time.monotonic() - self._when
        by_steps = self._config.save_every > 0 and place.step % self._config.save_every == 0
        by_clock = self._config.save_minutes > 0 and waited > 60 * self._config.save_minutes
        return by_steps or by_clock or (place.batch == 0 and waited * _SHARE >= self._took)

    def save(self, place: Place, best: Best, stepper: Stepper) -> None:
        """Write the best weights and the state; every process must call it.

        Raises:
            UserError: on every process, when the disk takes no more.
        """
        began = time.monotonic()
        write = collect_state(self._out, place, best.record(), stepper, self._device)

        def first() -> None:
            with disk_trouble(str(self._out), self.kept()):
                best.flush()
                write()

        decided_by_first(first, self._device)
        self._saved = place.step
        self._when = time.monotonic()
        self._took = self._when - began

    def flush(self, best: Best) -> None:
        """Write the best weights only."""

        def first() -> None:
            with disk_trouble(str(self._out), self.kept()):
                best.flush()

        decided_by_first(first, self._device)

    def kept(self) -> str:
        """Say what is safe."""
        if self._saved is None:
            return "nothing had been saved yet"
        return f"the last good state, of step {self._saved}, stays"
