"""Sums over processes that gradients pass through, and what processes must agree on first."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from diptych.core.runtime import world


def log_add_exp(local: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return log sum exp over the processes, element by element; the same on each, the identity for one process.

    As in `core.runtime.gather`, the gradient is that of the *sum* of the processes' losses.
    """
    if world() == 1:
        return local
    summed: Tensor = _LogAddExp.apply(local)  # type: ignore[no-untyped-call]
    return summed


def largest_over_processes(value: int, device: torch.device) -> int:
    """Return the largest of a number that each process has."""
    largest = torch.tensor(value, device=device)
    if world() > 1:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


class _LogAddExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        largest = local.clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        shift = largest.nan_to_num(neginf=0.0)
        total = (local - shift).exp_()
        dist.all_reduce(total)
        total = total.log_().add_(shift)
        ctx.save_for_backward(local, total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        local, total = ctx.saved_tensors
        whole = grads[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole.mul_((local - total).exp())
