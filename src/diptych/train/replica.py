"""Replica: a model as this process holds it: alone, copied by DDP, or sharded by FSDP2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from diptych.core.errors import UserError
from diptych.core.model import Model, Phased, Staged
from diptych.core.runtime import world

Made = TypeVar("Made")


class _Door(nn.Module):
    """The one way into a model that DDP and FSDP can watch: they hook `forward`, our models have `loss`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Made]) -> Made:
        return work()


class Replica:
    """Runs a model's work so that gradients end up averaged over the processes.

    Args:
        model: on its device already, with gradients asked for where the stage wants them.
        sharding: "none" copies the model to every process, "fsdp" spreads it.

    Raises:
        UserError: when sharding is asked for without processes, or for a model that changes what it learns.
    """

    def __init__(self, model: Model, *, sharding: str) -> None:
        self.model = model
        self._door: nn.Module = _Door(model)
        self._left: list[nn.Parameter] = []
        if sharding == "fsdp":
            self._left = _shard(self._door, model)
        elif world() > 1:
            # Which parameters a loss touches may differ between phases and batches, so DDP has to look each time. It
            # says once, from C++, that this costs something where it finds none unused; that line is harmless.
            self._door = DistributedDataParallel(self._door, find_unused_parameters=True)

    def run(self, work: Callable[[], Made]) -> Made:
        """Do a forward pass of the model; what it returns may be sent backwards."""
        made: Made = self._door(work)
        return made

    @contextmanager
    def adding(self, *, last: bool) -> Iterator[None]:
        """Wrap one forward and backward pass of several; only the last one talks to the other processes."""
        door = self._door
        silent: AbstractContextManager[None] = nullcontext()
        if isinstance(door, DistributedDataParallel) and not last:
            silent = door.no_sync()
        if isinstance(door, FSDPModule):
            door.set_requires_gradient_sync(last)
        with silent:
            yield

    def finish(self) -> None:
        """Average the few gradients that sharding leaves alone; call it after the last backward pass."""
        for parameter in self._left:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Put a sharded model together on every process, so that any of its methods can be called."""
        sharded = [module for module in self._door.modules() if isinstance(module, FSDPModule)]
        for module in sharded:
            module.unshard()
        try:
            yield
        finally:
            for module in sharded:
                module.reshard()


def _shard(door: nn.Module, model: Model) -> list[nn.Parameter]:
    """Shard the blocks of every list of layers, then the rest; return what cannot be sharded: scalars."""
    if not dist.is_initialized():
        raise UserError("sharding=fsdp needs torchrun --nproc-per-node N; leave it out for one process")
    if isinstance(model, Phased | Staged):
        raise UserError("sharding=fsdp does not suit a system with phases or stages; use sharding=none")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor, 0)
    scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    done: set[nn.Module] = set()
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for block in layers:
            if block not in done and any(parameter not in scalars for parameter in block.parameters()):
                fully_shard(block, ignored_params=scalars)
                done.update(block.modules())
    fully_shard(door, ignored_params=scalars)
    return list(scalars)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its shards; every process must ask."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(live: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into a live one, which may be sharded."""
    if isinstance(live, DTensor):
        value = distribute_tensor(value.to(live.device), live.device_mesh, live.placements, src_data_rank=None)
    live.copy_(value)
