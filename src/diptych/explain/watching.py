"""Watching a tower: what its blocks pass on, and the weights of its attention, in one pass and no longer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.encoders.base import Tower
from diptych.encoders.hub import HubImage, HubText
from diptych.encoders.plan import block_list
from diptych.nn.attention import Attention
from diptych.nn.windows import WindowAttention

_ROUNDED = 1e-2  # by which rows may miss one, in bf16 as well


@dataclass(frozen=True, slots=True)
class Looked:
    """The weights of one attention, (1, h, q, k); those inside of windows are (1, n, h, t, t), and `windows` is set."""

    weights: Tensor
    windows: WindowAttention | None = None

    @property
    def among_itself(self) -> bool:
        """Whether tokens look at each other, and stay beside what they take; not so in pooling by a query."""
        return self.weights.shape[-1] == self.weights.shape[-2]


@dataclass(frozen=True, slots=True)
class Record:
    """What was seen, in the order of computing.

    Args:
        blocks: what came into the first block of the tower, then what each block passed on.
        attention: the weights of each attention that can be read.
    """

    blocks: list[Tensor] = field(default_factory=list)
    attention: list[Looked] = field(default_factory=list)

    def readable(self) -> bool:
        """Tell whether attention leads from the first tokens to the last, not through windows at unknown places."""
        known = [one.windows is not None or one.weights.shape[0] == 1 for one in self.attention]
        plain = [one.weights for one in self.attention if one.windows is None]
        fits = [late.shape[-1] == early.shape[-2] for early, late in itertools.pairwise(plain)]
        return bool(known) and all(known) and all(fits)


@contextmanager
def watched(tower: Tower) -> Iterator[Record]:
    """Record what a tower does; afterwards it is as it was before."""
    record = Record()
    with ExitStack() as undo:
        for number, block in enumerate(_blocks(tower)):
            if number == 0:
                undo.callback(block.register_forward_pre_hook(_keep_input(record)).remove)
            undo.callback(block.register_forward_hook(_keep_output(record)).remove)
        for module in tower.modules():
            if isinstance(module, Attention | WindowAttention):
                windows = module if isinstance(module, WindowAttention) else None
                module.watch = _keep_weights(record, windows)
                undo.callback(setattr, module, "watch", None)
        if isinstance(tower, HubImage | HubText):
            _watch_foreign(tower.model, record, undo)
        yield record


def _blocks(tower: Tower) -> list[nn.Module]:
    """Return the blocks of a tower in order; a list of one block is one as well."""
    try:
        return list(tower.get_submodule(block_list(tower)).children())
    except UserError:
        lists = [part for part in tower.modules() if isinstance(part, nn.ModuleList)]
        return list(lists[0].children()) if lists else []


def _keep_input(record: Record) -> Callable[..., None]:
    def keep(module: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor) and given[0].requires_grad:
            record.blocks.append(given[0])

    return keep


def _keep_output(record: Record) -> Callable[..., None]:
    def keep(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and first.requires_grad:
            record.blocks.append(first)

    return keep


def _keep_weights(record: Record, windows: WindowAttention | None) -> Callable[[Tensor], Tensor]:
    def keep(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        record.attention.append(Looked(weights, windows))
        return weights

    return keep


def _watch_foreign(model: Any, record: Record, undo: ExitStack) -> None:
    """Let a model of transformers compute its attention openly, which returns the weights beside the result."""

    def keep(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, Tensor) or weights.ndim != 4 or weights.shape[2] != weights.shape[3]:
            return
        if weights.requires_grad and _add_up(weights) and not any(weights is one.weights for one in record.attention):
            record.attention.append(Looked(weights))

    usual = model.config._attn_implementation
    if usual not in (None, "eager"):
        undo.callback(model.set_attn_implementation, usual)
        model.set_attn_implementation("eager")
    for module in model.modules():
        undo.callback(module.register_forward_hook(keep).remove)


def _add_up(weights: Float[Tensor, "b h q k"]) -> bool:
    """Tell attention from anything else of its shape, such as the bias of relative positions."""
    sums = weights.detach().sum(-1)
    return bool(((sums - 1).abs() < _ROUNDED).all()) and bool((weights >= 0).all())
