"""How much of a tower is trained: all, nothing, its last blocks, or low-rank maps beside its linear layers."""

from __future__ import annotations

import re
from typing import TypeVar

from torch import nn

from diptych.core.errors import UserError
from diptych.encoders.base import Tower
from diptych.nn.linear import Linear
from diptych.nn.lora import add_lora

T = TypeVar("T", bound=Tower)

_PLAN = re.compile(r"(all|frozen)|last:([1-9]\d*)|lora:([1-9]\d*)(:all)?")


def apply_plan(tower: T, plan: str) -> T:
    """Stop the gradients of what a plan leaves out; it stays in evaluation mode, BatchNorm statistics included.

    Args:
        tower: changed in place.
        plan: "all", "frozen", "last:N" (the last N blocks and what comes after them), "lora:R" (maps of rank R
            beside the linear layers of the attention) or "lora:R:all" (beside all linear layers).

    Returns:
        The same tower.

    Raises:
        UserError: for another plan, or one that the tower has no layers for.
    """
    match = _PLAN.fullmatch(plan)
    if match is None:
        raise UserError(
            f"unknown training plan {plan!r} for a tower (allowed: all, frozen, last:N, lora:R, lora:R:all)"
        )
    whole, last, rank, every = match.groups()
    if last is not None:
        tower.train_only(last_blocks(tower, int(last)))
    elif rank is not None:
        _lora(tower, int(rank), every=every is not None)
    elif whole == "frozen":
        tower.train_only(())
    return tower


def block_list(tower: nn.Module) -> str:
    """Find the list of a tower's blocks by its structure: the longest that is in no other list, the last of equals.

    A list is an `nn.ModuleList`, or an `nn.Sequential` of at least two layers of one kind.

    Returns:
        Its name, as in `named_modules`.

    Raises:
        UserError: when there is none.
    """
    best, length = "", 0
    inside: tuple[str, ...] = ()
    for name, part in tower.named_modules():
        if not _is_list(part) or name.startswith(inside):
            continue
        inside += (f"{name}.",)
        count = len(list(part.children()))
        if count >= length:
            best, length = name, count
    if length < 2:
        raise UserError(f"cannot tell the blocks of this {type(tower).__name__} apart: train it with all or frozen")
    return best


def last_blocks(tower: nn.Module, count: int) -> list[str]:
    """Name the last blocks of a tower and the modules that come after them, such as a last norm.

    Raises:
        UserError: when there are fewer blocks.
    """
    blocks = block_list(tower)
    have = len(list(tower.get_submodule(blocks).children()))
    if count > have:
        raise UserError(f"last:{count} asks for more blocks than this tower's {have}: give last:{have} or all")
    names = [name for name, _ in tower.named_modules()]
    after = max(place for place, name in enumerate(names) if name.startswith(f"{blocks}."))
    tail: list[str] = []
    for name in names[after + 1 :]:
        if not name.startswith(tuple(f"{taken}." for taken in tail)):
            tail.append(name)
    return [f"{blocks}.{index}" for index in range(have - count, have)] + tail


def depths(tower: nn.Module) -> dict[str, int]:
    """Tell how far below the end of a tower each of its weights lies, by name.

    Returns:
        0 for what comes after the last block, 1 for that block, and so on down; what comes before the first of L
        blocks, such as patches and positions, is at L + 1.

    Raises:
        UserError: when the blocks cannot be told apart.
    """
    blocks = block_list(tower)
    have = len(list(tower.get_submodule(blocks).children()))
    tail = tuple(f"{name}." for name in last_blocks(tower, 1) if not name.startswith(f"{blocks}."))
    found = {}
    for name, _ in tower.named_parameters():
        if name.startswith(f"{blocks}."):
            found[name] = have - int(name.removeprefix(f"{blocks}.").partition(".")[0])
        else:
            found[name] = 0 if name.startswith(tail) else have + 1
    return found


def _is_list(part: nn.Module) -> bool:
    """Tell a list of blocks."""
    if isinstance(part, nn.Sequential):
        return len(part) > 1 and len({type(child) for child in part}) == 1
    return isinstance(part, nn.ModuleList)


def _lora(tower: Tower, rank: int, *, every: bool) -> None:
    """Add low-rank maps and train nothing else."""
    linears = _linears(tower, every=every)
    if not linears:
        where = "" if every else " in an attention"
        raise UserError(
            f"lora:{rank} needs linear layers{where}, and this {type(tower).__name__} has none that it can reach: "
            + ("train it with last:N" if every else f"try lora:{rank}:all, or last:N")
        )
    add_lora(tower, linears, rank)
    tower.train_only(f"{name}.{part}" for name in linears for part in ("down", "up"))


def _linears(tower: nn.Module, *, every: bool) -> list[str]:
    """Name the linear layers that can be wrapped; torch's own attention reads its weights past `forward`."""
    names: list[str] = []
    attention: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    for name, part in tower.named_modules():
        if isinstance(part, nn.MultiheadAttention):
            closed += (f"{name}.",)
        elif "attention" in type(part).__name__.lower():
            attention += (f"{name}.",)
        elif (
            type(part) in (nn.Linear, Linear) and not name.startswith(closed) and (every or name.startswith(attention))
        ):
            names.append(name)
    return names
