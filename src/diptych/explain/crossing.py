"""Relevance through the attention between picture and question: how much each cell did for an answer.

Reference:
    Chefer et al. 2021, arXiv 2103.15679, the rule for cross-attention. Here every layer looks at the other side's first
    tokens, so what the layers add up to is the sum of what each would alone.
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
from diptych.nn.streams import CrossStreams

Values = Callable[[Tensor], Tensor]
"""From the cells that the image tower made, (1, n, d), to the values explained, (s)."""


def relevance_between(model: nn.Module, values: Values, cells: Float[Tensor, "1 n d"]) -> Float[Tensor, "s n"]:
    """Say for each value how relevant each cell was for the words that looked at it.

    Args:
        model: with two streams that look at each other.
        values: what is explained; in one pass through the model.
        cells: of the image tower, in their order. What else the words look at (a summary) stands before them.

    Returns:
        Relevance of each cell, >= 0: the mean over the words.

    Raises:
        UserError: for a model without such streams.
    """
    streams = [part for part in model.modules() if isinstance(part, CrossStreams)]
    if len(streams) != 1:
        raise UserError(
            f"{type(model).__name__} has no two streams that look at each other (fusion=attention has), through which "
            "relevance goes: method=occlusion and method=gradcam explain it"
        )
    with torch.enable_grad(), ExitStack() as undo:
        seen: dict[str, list[Tensor]] = {"words": [], "cells": []}
        for name, layers in (("words", streams[0].words), ("cells", streams[0].cells)):
            for attention in (part for part in layers.modules() if isinstance(part, Attention)):
                attention.watch = _keep(seen[name])
                undo.callback(setattr, attention, "watch", None)
        found = values(cells.detach().requires_grad_())
        return torch.stack([_of(value, seen["words"], seen["cells"], cells.shape[1]) for value in found])


def _of(value: Float[Tensor, ""], words: list[Tensor], cells: list[Tensor], count: int) -> Float[Tensor, " n"]:
    slopes = torch.autograd.grad(value, [*words, *cells], retain_graph=True, allow_unused=True, materialize_grads=True)
    total = torch.zeros(count, device=value.device)
    for number, (saw, seen) in enumerate(zip(words, cells, strict=True)):
        word_saw = positive(saw[0].detach(), slopes[number][0])
        cell_saw = positive(seen[0].detach(), slopes[len(words) + number][0])
        both = Both.begin(*word_saw.shape).after_cross(word_saw.cpu(), cell_saw.cpu())
        total += both.sq.mean(0)[-count:].to(total)
    return total


def _keep(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        seen.append(weights)
        return weights

    return keep
