"""The gradient of one batch: at once, in parts, or in parts with cached embeddings, and always that of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diptych.core.batch import Batch
from diptych.core.model import Coupled, Loss, Model
from diptych.train.replica import Replica
from diptych.train.rng import TorchState


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Where and how precisely a model computes.

    Args:
        device: where.
        bf16: whether layers may round to bfloat16; weights, sums and what a model guards stay in float32.
    """

    device: torch.device
    bf16: bool

    @classmethod
    def choose(cls, device: torch.device, precision: str) -> Arithmetic:
        """Read a setting: "fp32", "bf16", or "auto", which is bf16 on a GPU that has it."""
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return cls(device, precision == "bf16" or (precision == "auto" and able))

    def context(self) -> AbstractContextManager[None]:
        """Return what to compute in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def cut(rows: int, parts: int) -> list[slice]:
    """Cut rows into at most so many parts that differ as little as they can; none is lost.

    Returns:
        For 10 rows in 4 parts: sizes 3, 3, 2, 2.
    """
    parts = max(1, min(rows, parts))
    bounds = [(rows * index + parts - 1) // parts for index in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def add_gradients(
    replica: Replica, batch: Batch, arithmetic: Arithmetic, *, phase: str = "main", parts: int = 1, weight: float = 1.0
) -> Loss:
    """Add the gradient of a batch to that of the model's parameters.

    A model that is `Coupled` gets exactly the gradient of the whole batch, however it is cut, dropout included. Any
    other gets the mean over the parts, each with the weight of its rows, which is the whole batch's gradient where
    the loss is a mean over examples.

    Args:
        replica: the model.
        batch: on its device.
        arithmetic: precision.
        phase: which of the model's losses.
        parts: into how many the batch is cut, to save memory.
        weight: of this process's batch among those of all; 1 where all have the same number of rows.

    Returns:
        The loss and its parts, detached, of this process's batch.
    """
    model = replica.model
    if parts > 1 and phase == "main" and isinstance(model, Coupled):
        return _cached(replica, model, batch, arithmetic, parts)
    return _plain(replica, batch, arithmetic, phase, parts, weight)


def _plain(replica: Replica, batch: Batch, arithmetic: Arithmetic, phase: str, parts: int, weight: float) -> Loss:
    model = replica.model
    rows = cut(len(batch), parts)
    losses = []
    for part in rows:

        def work(part: slice = part) -> tuple[Tensor, dict[str, Tensor]]:
            with arithmetic.context():
                loss = model.loss(batch.part(part) if len(rows) > 1 else batch, phase)
            return loss.total, {name: value.detach() for name, value in loss.parts.items()}

        share = (part.stop - part.start) / len(batch)
        with replica.adding(last=part is rows[-1]):
            total, named = replica.run(work)
            (total * (share * weight)).backward()
        losses.append((share, total.detach(), named))
    names = losses[0][2]
    return Loss(
        reduce(torch.add, [share * total for share, total, _ in losses]),
        {name: reduce(torch.add, [share * named[name] for share, _, named in losses]) for name in names},
    )


def _cached(replica: Replica, model: Coupled, batch: Batch, arithmetic: Arithmetic, parts: int) -> Loss:
    """Embed part by part without gradient, compare everything, then embed again with the slopes known.

    The second time each part starts from the random numbers of the first, so that dropout drops the same.

    Reference:
        Gao et al. 2021, GradCache, arXiv 2101.06983.
    """
    rows, device = cut(len(batch), parts), arithmetic.device
    before, first = [], []
    with torch.no_grad(), _still_statistics(replica.model):
        for part in rows:
            before.append(TorchState.now(device))
            first.append(_embed(replica, model, batch.part(part), arithmetic))
    leaves = tuple(torch.cat(pieces).detach().requires_grad_() for pieces in zip(*first, strict=True))
    loss = _couple(replica, model, leaves, batch, arithmetic)
    after = TorchState.now(device)
    owed = _take_gradients(replica.model)
    for part, state in zip(rows, before, strict=True):
        state.restore(device)
        last = part is rows[-1]
        slopes = tuple(_slope(leaf)[part] for leaf in leaves)
        with replica.adding(last=last):
            _backward(replica, model, batch.part(part), slopes, owed if last else [], arithmetic)
    after.restore(device)
    return Loss(loss.total.detach(), {name: value.detach() for name, value in loss.parts.items()})


def _embed(replica: Replica, model: Coupled, part: Batch, arithmetic: Arithmetic) -> tuple[Float[Tensor, "b d"], ...]:
    def work() -> tuple[Tensor, ...]:
        with arithmetic.context():
            return model.embed(part)

    return replica.run(work)


def _couple(replica: Replica, model: Coupled, leaves: tuple[Tensor, ...], batch: Batch, arithmetic: Arithmetic) -> Loss:
    """Compare all embeddings and send the loss back as far as them, and to what the comparison itself learns."""

    def work() -> tuple[Tensor, dict[str, Tensor]]:
        with arithmetic.context():
            loss = model.couple(leaves, batch)
        return loss.total, {name: value.detach() for name, value in loss.parts.items()}

    with replica.adding(last=False):
        total, named = replica.run(work)
        total.backward()  # type: ignore[no-untyped-call]
    return Loss(total, named)


def _slope(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _take_gradients(model: Model) -> list[tuple[nn.Parameter, Tensor]]:
    """Take the gradients that the comparison gave to parameters, such as a temperature.

    DDP averages only what the last pass touched. So they are paid in there, as the gradient of p * g; sharded
    ones are kept by FSDP itself and do not show here.
    """
    owed = []
    for parameter in model.parameters():
        if parameter.grad is not None:
            owed.append((parameter, parameter.grad))
            parameter.grad = None
    return owed


def _backward(
    replica: Replica,
    model: Coupled,
    part: Batch,
    slopes: tuple[Tensor, ...],
    owed: list[tuple[nn.Parameter, Tensor]],
    arithmetic: Arithmetic,
) -> None:
    def work() -> Tensor:
        with arithmetic.context():
            embeddings = model.embed(part)
        pairs: list[tuple[Tensor, Tensor]] = [*zip(embeddings, slopes, strict=True), *owed]
        return reduce(torch.add, [(value * slope).sum() for value, slope in pairs])

    replica.run(work).backward()  # type: ignore[no-untyped-call]


@contextmanager
def _still_statistics(model: Model) -> Iterator[None]:
    """Let batch normalisation not count the first of two looks at the same rows."""
    counting = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True


def parts_see_each_other(model: Model) -> bool:
    """Tell whether a layer in training mode mixes the rows of a part, which no accumulation can make exact."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
