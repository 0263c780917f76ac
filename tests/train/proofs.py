"""Losses and gradients of one global batch of 16, by as many processes as there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Model
from diptych.core.runtime import mean_over_processes, rank, seed_everything, world
from diptych.models.align.clip import Config, build
from diptych.train.config import TrainConfig
from diptych.train.gradients import Arithmetic, add_gradients
from diptych.train.replica import whole
from diptych.train.step import Stepper
from tests.train import toys

CPU = Arithmetic(torch.device("cpu"), bf16=False)


def exact(batch: Batch) -> Batch:
    """Turn what is real into float64, so that rounding hides nothing."""
    return batch.map(lambda value: value.double() if value.is_floating_point() else value)


def batch_of(sizes: list[int]) -> Batch:
    """Take this process's rows of the global batch."""
    everything = exact(next(toys.Pairs(16, 16).epoch(0)))
    start = sum(sizes[: rank()])
    return everything.part(slice(start, start + sizes[rank()]))


def fresh(make: Callable[[], Model]) -> Model:
    seed_everything(0)
    return make()


def clip() -> Model:
    towers = {"image_dim": 16, "image_layers": 2, "image_heads": 2, "image_patch": 2, "text_dim": 16, "text_layers": 2}
    spec = DataSpec(image_size=toys.SIZE, vocabulary=toys.WORDS, context=2)
    return build(Config(**towers, text_heads=2, text_context=2, dim=8), spec)


def gradient(make: Callable[[], Model], *, parts: int, phase: str = "main") -> dict[str, Tensor]:
    model, batch = fresh(make).double(), batch_of([16 // world()] * world())
    if make is clip:  # two captions of one picture may be on two processes
        batch = replace(batch, pair_id=batch.label)
    stepper = Stepper(model, TrainConfig(accumulate=parts), CPU)
    loss = add_gradients(stepper.replica, batch, CPU, phase=phase, parts=parts)
    found = {"loss": mean_over_processes(loss.total)}
    found |= {name: value.grad for name, value in stepper.model.named_parameters() if value.grad is not None}
    return found


def steps(make: Callable[[], Model], sizes: list[int], **settings) -> dict[str, Tensor]:
    """Take three steps, the rows dealt out unevenly where that is allowed."""
    model = fresh(make).double()
    stepper = Stepper(model, TrainConfig(lr=0.1, weight_decay=0, betas=(0.9, 0.9), clip=0.5, ema=0.5, **settings), CPU)
    values = [stepper.step(batch_of(sizes), 0.1) for _ in range(3)]
    found = {name: whole(value).clone() for name, value in model.named_parameters()}
    found |= {f"average.{name}": whole(value).clone() for name, value in stepper.ema.average.items()}
    return found | {name: torch.tensor([value[name] for value in values]) for name in values[0]}


def proofs() -> dict[str, Tensor]:
    """Return everything that must be the same for one process and for two."""
    even = [16 // world()] * world()
    uneven = even if world() == 1 else [11, 5]
    fsdp = {} if world() == 1 else {"sharding": "fsdp"}
    found = {
        "coupled": gradient(toys.Twins, parts=1),
        "coupled in 3 parts": gradient(toys.Twins, parts=3),
        "clip": gradient(clip, parts=1),
        "clip in 3 parts": gradient(clip, parts=3),
        "ordinary": gradient(toys.Guess, parts=1),
        "ordinary in 3 parts": gradient(toys.Guess, parts=3),
        "critic": gradient(toys.Gan, parts=1, phase="critic"),
        "coupled steps": steps(toys.Twins, even, accumulate=2),
        "uneven steps": steps(toys.Guess, uneven),
        "gan steps": steps(toys.Gan, even),
        "sharded coupled steps": steps(toys.Twins, even, **fsdp),
        "sharded coupled steps in parts": steps(toys.Twins, even, accumulate=2, **fsdp),
        "sharded steps": steps(toys.Guess, even, **fsdp),
    }
    return {f"{kind}/{name}": value.detach().clone() for kind, of in found.items() for name, value in of.items()}
