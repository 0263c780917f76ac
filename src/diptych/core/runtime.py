"""The process this code runs in: its rank, device and seeds, and sums and gathers over all processes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


def rank() -> int:
    """Return this process's number, 0 when there is only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Return how many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait for every process; nothing when there is one."""
    if world() > 1:
        dist.barrier()


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str = "auto") -> torch.device:
    """Return the device named, or with "auto" the first of CUDA, Apple's GPU and the CPU that is there."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class _Gather(torch.autograd.Function):
    """All-gather on the first axis whose backward adds up what every process did with this one's rows."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local) for _ in range(world())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        whole = grads[0].contiguous().clone()
        dist.all_reduce(whole)
        start = rank() * ctx.rows
        return whole[start : start + ctx.rows]


def gather(local: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "n ..."]:
    """Join the rows of every process in rank order, with gradients; the identity when there is one process.

    Every process must give the same number of rows. The gradient is the *sum* over processes of their gradients,
    so that with the usual mean of parameter gradients a mean of local losses has exactly the whole batch's gradient.
    """
    if world() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)  # type: ignore[no-untyped-call]
    return gathered


def add_over_processes(value: Tensor) -> Tensor:
    """Return the sum over the processes, without gradient."""
    total = value.detach().clone()
    if world() > 1:
        dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean over the processes, without gradient."""
    return add_over_processes(value) / world()
