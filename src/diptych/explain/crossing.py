"""Relevance through the attention between picture and question: how much each cell did for an answer.

Reference:
    Chefer et al. 2021, arXiv 2103.15679, the rules for cross-attention and self-attention. In two streams every layer
    looks at the other side's first tokens, so what the layers add up to is the sum of what each would alone. What the
    cells told each other before the words looked is not followed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.explain.relevance import Both, positive
from diptych.nn.attention import Attention
from diptych.nn.cross import CrossBlock, CrossReader
from diptych.nn.streams import CrossStreams

Values = Callable[[Tensor], Tensor]
"""From the cells that the image tower made, (1, n, d), to the values explained, (s)."""


def relevance_between(model: nn.Module, values: Values, cells: Float[Tensor, "1 n d"]) -> Float[Tensor, "s n"]:
    """Say for each value how relevant each cell was for the words that looked at it.

    Args:
        model: with two streams that look at each other, or a reader whose words look at themselves and at the cells.
        values: what is explained; in one pass through the model.
        cells: of the image tower, in their order. What else the words look at (a summary) stands before them.

    Returns:
        Relevance of each cell, >= 0: the mean over the words.

    Raises:
        UserError: for a model without such streams.
    """
    parts = crossings(model)
    if len(parts) != 1:
        raise UserError(
            f"{type(model).__name__} has no two streams that look at each other (fusion=attention and "
            "fusion=cross_attention have), through which relevance goes: method=occlusion and method=gradcam explain it"
        )
    one = parts[0]
    own, other = (one.words, one.cells) if isinstance(one, CrossStreams) else _in_turn(one)
    with torch.enable_grad(), ExitStack() as undo:
        seen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for kept, layers in zip(seen, (own, other), strict=True):
            for attention in (part for layer in layers for part in layer.modules() if isinstance(part, Attention)):
                attention.watch = _keep(kept)
                undo.callback(setattr, attention, "watch", None)
        found = values(cells.detach().requires_grad_())
        gather = _across if isinstance(one, CrossStreams) else _through
        return torch.stack([gather(*_weighed(value, *seen))[-cells.shape[1] :] for value in found]).to(cells.device)


def crossings(model: nn.Module) -> list[CrossStreams | CrossReader]:
    """List the parts of a model in which words look at cells, as far as relevance can be followed through them."""
    return [part for part in model.modules() if isinstance(part, CrossStreams | CrossReader)]


def _in_turn(reader: CrossReader) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the attention of each block to the cells, and that of the words to themselves."""
    blocks = [block for block in reader.blocks if isinstance(block, CrossBlock)]
    return nn.ModuleList(block.cross for block in blocks), nn.ModuleList(block.attention for block in blocks)


def _weighed(
    value: Float[Tensor, ""], one: list[Tensor], other: list[Tensor]
) -> tuple[list[Float[Tensor, "q k"]], list[Float[Tensor, "_ _"]]]:
    """Return what was seen in each layer, as far as more of it would raise the value."""
    slopes = torch.autograd.grad(value, [*one, *other], retain_graph=True, allow_unused=True, materialize_grads=True)
    found = [positive(saw[0].detach(), slope[0]).cpu() for saw, slope in zip([*one, *other], slopes, strict=True)]
    return found[: len(one)], found[len(one) :]


def _across(words: list[Tensor], cells: list[Tensor]) -> Float[Tensor, " n"]:
    """Add up what the words saw, layer by layer."""
    both = [Both.begin(*saw.shape).after_cross(saw, seen).sq.mean(0) for saw, seen in zip(words, cells, strict=True)]
    return torch.stack(both).sum(0)


def _through(saw: list[Tensor], words: list[Tensor]) -> Float[Tensor, " n"]:
    """Follow words that look at each other, then at the cells, block by block."""
    both = Both.begin(*saw[0].shape)
    for looked, told in zip(saw, words, strict=True):
        both = both.after_self(told).after_cross(looked)
    return both.sq.mean(0)


def _keep(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not weights.requires_grad:  # before a word has seen a cell, in a model whose weights are at rest
            weights = weights.detach().requires_grad_()
        seen.append(weights)
        return weights

    return keep
