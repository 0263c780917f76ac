"""What a student does not see: blocks of a picture's patches, spans of a text's words, exactly the share asked for.

Reference:
    Bao et al. 2021, arXiv 2106.08254 (BEiT): rectangles of patches, one after another until enough is hidden; here the
    last one is cut off, so that every picture hides as many. Spans lie on a grid that begins at random, by which they
    never overlap.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BLOCKS = 16
SMALLEST, LARGEST, ASPECT = 16 / 196, 0.5, 0.3
"""Of a block: shares of the picture, and how flat or steep it may be."""
GOLDEN = 0.5 * (5**0.5 - 1)


def hidden_blocks(
    rows: int, side: int, share: float, *, device: torch.device, still: bool = False
) -> Bool[Tensor, "b p"]:
    """Hide rectangles of patches.

    Args:
        rows: pictures.
        side: patches on a side of the square.
        share: of the patches, in (0, 1).
        device: of the result.
        still: hide the same in every picture, whenever it is asked for.

    Returns:
        True where hidden, equally often in each picture: at least once, and never everywhere.
    """
    if still:
        drawn = (
            torch.rand(4, 1, BLOCKS, 1, generator=torch.Generator().manual_seed(0)).to(device).expand(-1, rows, -1, -1)
        )
    else:
        drawn = torch.rand(4, rows, BLOCKS, 1, device=device)
    area = side**2 * (SMALLEST + (LARGEST - SMALLEST) * drawn[0])
    steep = (drawn[1] * 2 - 1).mul(-math.log(ASPECT)).exp()
    height, width = ((area * ratio).sqrt().round().clamp(1, side) for ratio in (steep, 1 / steep))
    top, left = ((drawn[2] * (side + 1 - height)).floor(), (drawn[3] * (side + 1 - width)).floor())
    place = torch.arange(side**2, device=device)
    row, column = place // side, place % side
    inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    order = torch.arange(BLOCKS, device=device)[:, None]
    first = torch.where(inside, order, BLOCKS).amin(1)
    count = min(max(1, round(side**2 * share)), side**2 - 1)
    return _lowest(first.float(), torch.full((rows, 1), count, device=device))


def hidden_spans(words: Bool[Tensor, "b t"], share: float, *, length: int, still: bool = False) -> Bool[Tensor, "b t"]:
    """Hide runs of words.

    Args:
        words: which tokens may be hidden; they stand side by side.
        share: of them, in (0, 1).
        length: words in a span.
        still: hide the same in every text of as many words, whenever it is asked for.

    Returns:
        True where hidden: in each row the share, rounded, and at least one word where there is one.
    """
    rows, places = words.shape
    if still:
        spread = torch.arange(1, places + 2, dtype=torch.float64, device=words.device) * GOLDEN
        drawn = spread.frac().float().expand(rows, -1)
    else:
        drawn = torch.rand(rows, places + 1, device=words.device)
    before = words.cumsum(1) - 1  # the number of each word in its row, whatever stands before the first
    begin = (drawn[:, :1] * length).floor().long()
    noise = drawn[:, 1:].gather(1, ((before + begin) // length).clamp(min=0))
    count = words.sum(1, keepdim=True)
    wanted = (share * count).round().clamp(min=1).minimum(count)
    return _lowest(noise.masked_fill(~words, 2.0), wanted) & words


def _lowest(values: Float[Tensor, "b p"], count: Tensor) -> Bool[Tensor, "b p"]:
    """Return which places have the lowest values of their row, so many of them, the first of equals."""
    return values.argsort(dim=1, stable=True).argsort(dim=1) < count
