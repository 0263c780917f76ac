"""Processes: join those that torchrun started, let the first one decide, and end together."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from diptych.core.errors import UserError
from diptych.core.runtime import pick_device, rank, world

_MOMENT = 0.2


@contextmanager
def processes(device: str = "auto") -> Iterator[torch.device]:
    """Join the processes of `torchrun`, or be the only one where there is no torchrun.

    Put it around the building of the task and of the model, so that loaders know their rank.

    Args:
        device: "auto", or the name of a device; on CUDA each process takes the card of its local rank.

    Yields:
        The device of this process.

    Raises:
        UserError: when the device is not there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield _checked(device)
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        _checked("cuda")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=1))
    try:
        yield torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        # End together, so that nobody takes the end of another for a fault; one may have left by an error of its own.
        with suppress(RuntimeError):
            dist.barrier()
    finally:
        if not cuda:
            # Sharded tensors keep gloo's threads alive past the group, and Python aborts when it ends while one of them
            # still lets go of its last message; a moment is all they need.
            time.sleep(_MOMENT)
        dist.destroy_process_group()


def _checked(name: str) -> torch.device:
    try:
        device = pick_device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is not known; give auto, cpu, cuda, cuda:1 or mps") from None
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise UserError(f"device {name!r} is not there on this machine; leave it out, or give device=cpu")
    return device


def require_joined() -> None:
    """Refuse to train as one of several processes that have not joined.

    Raises:
        UserError: when torchrun started several processes and nobody entered `processes()`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        raise UserError(
            "torchrun started several processes, but they have not joined; "
            "build the task and train inside `with diptych.train.distributed.processes():`"
        )


def decided_by_first(decide: Callable[[], Any], device: torch.device) -> Any:
    """Run something on the first process only, and give every process what it returned or the error it raised.

    Args:
        decide: returns a JSON value; on the other processes it is not called.
        device: where this process computes.

    Raises:
        UserError: on every process, when the first one raised it.
    """
    if world() == 1:
        return decide()
    answer: dict[str, Any] = {}
    if rank() == 0:
        try:
            answer = {"value": decide()}
        except UserError as error:
            answer = {"error": str(error)}
    answer = _from_first(answer, device)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def _from_first(answer: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Send JSON from the first process to all, as bytes: nothing is unpickled."""
    letters = torch.frombuffer(bytearray(json.dumps(answer).encode()), dtype=torch.uint8).to(device)
    length = torch.tensor([len(letters)], device=device)
    dist.broadcast(length, 0)
    if rank() != 0:
        letters = torch.empty(int(length), dtype=torch.uint8, device=device)
    dist.broadcast(letters, 0)
    received: dict[str, Any] = json.loads(bytes(letters.cpu().tolist()))
    return received


def any_of(wishes: list[bool], device: torch.device) -> list[bool]:
    """Tell for each wish whether any process has it, so that all do the same."""
    if world() == 1:
        return wishes
    votes = torch.tensor([float(wish) for wish in wishes], device=device)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return [vote > 0 for vote in votes.tolist()]
