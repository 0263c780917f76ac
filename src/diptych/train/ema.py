"""Ema: weights averaged over the steps, scored and kept in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diptych.core.model import Model


class Ema:
    """A running average of what the model learns: parameters with gradients, and floating buffers.

    The decay of step t is at most (1 + t) / (10 + t), so that the average soon forgets the random start.

    Args:
        model: the model to follow, on its device and, where it is sharded, after that.
        decay: share of the old average that stays at each step, in (0, 1).

    Reference:
        Polyak, Juditsky 1992; the rise of the decay is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: Model, *, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._live: dict[str, Tensor] = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._live |= {name: value for name, value in model.named_buffers() if value.is_floating_point()}
        self.average: dict[str, Tensor] = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights of this step."""
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in self._live.items():
            self.average[name].lerp_(value.detach(), 1 - keep)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Lend the averaged weights to the model, and give it its own back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live.items():
            held = value.detach().clone()
            value.copy_(self.average[name])
            self.average[name].copy_(held)
