"""Best: the weights with the largest score so far, held in memory and written when the run is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diptych.core.model import Model
from diptych.train.checkpoint import WEIGHTS, named_weights
from diptych.train.files import read_tensors, write_tensors
from diptych.train.replica import put, whole


class Best:
    """Keeps the best weights of a stage.

    A run that scores every second would spend its time writing files; so the weights wait in memory, and `flush`
    writes them together with the state to go on from. What is lost with the memory is learnt again after it.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.score: float | None = None
        self.scores: dict[str, float] = {}
        self.stale = 0
        self.kept = False
        self._file = folder / WEIGHTS
        self._weights: dict[str, Tensor] | None = None
        self._written = True

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `record` gave."""
        self.score, self.scores = kept["score"], dict(kept["scores"])
        self.stale, self.kept = kept["stale"], kept["kept"]

    def record(self) -> dict[str, Any]:
        """Return everything but the weights, as plain values."""
        return {"score": self.score, "scores": self.scores, "stale": self.stale, "kept": self.kept}

    def offer(self, score: float | None, scores: dict[str, float], model: Model) -> bool:
        """Take the model's weights when their score is the largest so far.

        Args:
            score: to be maximised, of any sign; None takes the weights in any case; nan never.
            scores: all of them, kept beside the weights.
            model: every process must offer the same one.

        Returns:
            Whether they were taken.
        """
        better = score is None or (not math.isnan(score) and (self.score is None or score > self.score))
        if not better:
            self.stale += 1
            return False
        self.score, self.scores, self.stale, self.kept = score, scores, 0, True
        weights = {name: whole(value) for name, value in named_weights(model).items()}
        self._weights = {name: value.to("cpu", copy=True) for name, value in weights.items()}
        self._written = False
        return True

    def flush(self) -> None:
        """Write the weights, unless they are written already; for the first process only."""
        if self._weights is not None and not self._written:
            write_tensors(self._file, self._weights)
            self._written = True

    def restore(self, model: Model) -> None:
        """Give the model the best weights, from memory or, when the run was resumed after them, from the file."""
        weights = read_tensors(self._file) if self._weights is None else self._weights
        for name, value in named_weights(model).items():
            put(value, weights[name])
