"""Occlusion: how much a cosine falls when a part of a picture is covered or a word left out; it looks into no model.

Reference:
    Zeiler & Fergus 2013, arXiv 1311.2901.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

CELLS = 8  # of a side of the grid; a cover is three cells wide


Values: TypeAlias = Callable[[Tensor], Tensor]
"""From pictures, (n, c, h, w), to the values explained, (n, s): a cosine, or one for each word of a caption."""


@torch.no_grad()
def without_parts(values: Values, image: Shaped[Tensor, "c h w"]) -> Float[Tensor, "s i j"]:
    """Cover one part of a picture after another with its median colour.

    Args:
        values: what is measured; all values of a picture in one pass.
        image: uint8 or float, square.

    Returns:
        For each value, and each cell of an 8 x 8 grid, the mean fall over the covers that hide the cell, >= 0.
    """
    side = image.shape[-1]
    blank = image.flatten(1).median(1).values[:, None, None]
    edges = [round(side * cell / CELLS) for cell in range(CELLS + 1)]
    covered = [image]
    for row in range(CELLS):
        for column in range(CELLS):
            one = image.clone()
            top, bottom = edges[max(0, row - 1)], edges[min(CELLS, row + 2)]
            left, right = edges[max(0, column - 1)], edges[min(CELLS, column + 2)]
            one[:, top:bottom, left:right] = blank
            covered.append(one)
    found = values(torch.stack(covered)).float()
    falls = (found[:1] - found[1:]).T.reshape(-1, 1, CELLS, CELLS)
    return F.avg_pool2d(falls, 3, stride=1, padding=1, count_include_pad=False)[:, 0].clamp(min=0)


@torch.no_grad()
def without_words(
    score: Callable[[Int[Tensor, "n t"]], Float[Tensor, " n"]], tokens: Int[Tensor, " t"], content: Bool[Tensor, " t"]
) -> Float[Tensor, " t"]:
    """Leave one token of a text out after another.

    Args:
        score: of texts without padding, such as their cosine with a picture.
        tokens: without padding.
        content: which tokens may be left out; marks of begin and end may not.

    Returns:
        For each token the fall of the score without it, >= 0.
    """
    falls = torch.zeros(len(tokens), device=tokens.device)
    places = content.nonzero().flatten().tolist()
    if not places or len(tokens) < 2:
        return falls
    shorter = torch.stack([torch.cat([tokens[:place], tokens[place + 1 :]]) for place in places])
    falls[places] = (score(tokens[None]) - score(shorter)).clamp(min=0).to(falls.dtype)
    return falls
