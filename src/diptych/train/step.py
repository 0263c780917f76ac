"""Stepper: one optimizer step for a batch, phase after phase."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Coupled, Loss, Model, Phased
from diptych.core.runtime import mean_over_processes, world
from diptych.train.config import TrainConfig
from diptych.train.ema import Ema
from diptych.train.gradients import Arithmetic, add_gradients
from diptych.train.optim import build_optimizer, layer_factors, pretrained_parameters, set_lr
from diptych.train.replica import Replica, whole


class NotFiniteError(UserError):
    """The loss or the gradient is no number any more; the weights have not been touched by it."""


class Stepper:
    """What changes a model: its replica, an optimizer for each phase, and the running average.

    Args:
        model: on its device, prepared for the stage.
        config: how to train.
        arithmetic: device and precision.

    Raises:
        UserError: when nothing of the model is to be learnt, or it cannot be sharded.
    """

    def __init__(self, model: Model, config: TrainConfig, arithmetic: Arithmetic) -> None:
        self.model = model
        self.config = config
        self.arithmetic = arithmetic
        self.replica = Replica(model, sharding=config.sharding)
        phases = model.phases() if isinstance(model, Phased) else {"main": list(model.parameters())}
        for phase in config.phase_lr.keys() - phases.keys():
            raise UserError(f"phase_lr names {phase!r}, but this system has only: {', '.join(phases)}")
        self.phases = {name: [value for value in members if value.requires_grad] for name, members in phases.items()}
        for phase, members in self.phases.items():
            if not members:
                raise UserError(f"nothing to learn in phase {phase!r}: all its weights are frozen")
        # frozen towers have hundreds of weights that need no clearing: a twentieth of a step on cached features
        self.learnt = [value for value in model.parameters() if value.requires_grad]
        pretrained, factors = pretrained_parameters(model), layer_factors(model, config.layer_decay)
        self.optimizers: dict[str, AdamW] = {
            name: build_optimizer(members, pretrained, config, phase=name, factors=factors)
            for name, members in self.phases.items()
        }
        self.ema = Ema(model, decay=config.ema) if config.ema > 0 else None

    def step(self, batch: Batch, lr: float) -> dict[str, float]:
        """Learn from a batch, once in each phase.

        Args:
            batch: on the model's device.
            lr: the rate of this step, before the factors of groups and phases.

        Returns:
            Losses, their parts and gradient norms by name, averaged over the processes.

        Raises:
            NotFiniteError: before the weights are touched, on every process.
        """
        values: dict[str, float] = {}
        weight = self._weight(len(batch))
        for phase, optimizer in self.optimizers.items():
            with self._only(phase):
                for value in self.learnt:
                    value.grad = None
                loss = add_gradients(
                    self.replica, batch, self.arithmetic, phase=phase, parts=self.config.accumulate, weight=weight
                )
                self.replica.finish()
                norm = clip_gradients(self.phases[phase], self.config.clip)
                values |= _measured(phase, loss, norm, weight)
                _require_finite(phase, values, lr)
                set_lr(optimizer, lr)
                optimizer.step()
            if isinstance(self.model, AfterStep):
                with torch.no_grad():
                    self.model.after_step()
        if self.ema is not None:
            self.ema.update()
        return values

    def _weight(self, rows: int) -> float:
        """Return the weight of this process's rows, so that the mean over processes is that over all examples."""
        if world() == 1:
            return 1.0
        counts = torch.zeros(world(), device=self.arithmetic.device)
        counts[dist.get_rank()] = rows
        dist.all_reduce(counts)
        everywhere = counts.tolist()
        uneven = min(everywhere) != max(everywhere)
        if min(everywhere) == 0 or (uneven and isinstance(self.model, Coupled)):
            given = ", ".join(f"{count:.0f}" for count in everywhere)
            raise UserError(f"the processes got {given} examples of one batch; leave out the last, uneven batch")
        return float(rows * world() / sum(everywhere))

    @contextmanager
    def _only(self, phase: str) -> Iterator[None]:
        """Ask for gradients only where a phase moves something: the loss of a generator runs through the critic."""
        if len(self.phases) == 1:
            yield
            return
        moved = set(self.phases[phase])
        still = {value for members in self.phases.values() for value in members} - moved
        for value in still:
            value.requires_grad_(False)
        try:
            yield
        finally:
            for value in still:
                value.requires_grad_(True)


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Shorten the gradient to a norm, and return the norm it had; 0 for `largest` leaves it."""
    given = [value for value in parameters if value.grad is not None]
    norm = get_total_norm([value.grad for value in given if value.grad is not None])
    if largest > 0:
        clip_grads_with_norm_(given, largest, norm)
    return whole(norm)


def _measured(phase: str, loss: Loss, norm: Tensor, weight: float) -> dict[str, float]:
    """Bring the numbers of a phase to the host in one go; the host waits for the device here, once."""
    before = "" if phase == "main" else f"{phase}/"
    names = [f"{before}loss", f"{before}norm", *(f"{before}loss/{name}" for name in loss.parts)]
    tensors = [loss.total * weight, norm, *(value * weight for value in loss.parts.values())]
    together = torch.stack([value.detach().float().reshape(()) for value in tensors])
    return dict(zip(names, mean_over_processes(together).tolist(), strict=True))


def _require_finite(phase: str, values: dict[str, float], lr: float) -> None:
    before = "" if phase == "main" else f"{phase}/"
    for name in (f"{before}loss", f"{before}norm"):
        if not math.isfinite(values[name]):
            parts = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
            raise NotFiniteError(f"{name} became {values[name]} in phase {phase!r} at lr {lr:.3g} ({parts})")
