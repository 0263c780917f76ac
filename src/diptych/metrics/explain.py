"""How good a heat map is: does it point at the thing, and does the score live by what it marks?

Reference:
    Zhang et al. 2016, arXiv 1608.00507 (the pointing game); Petsiuk et al. 2018, arXiv 1806.07421 (deletion and
    insertion). What is deleted takes the picture's median colour here, there grey or a blurred picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

Box = Sequence[float]


def points_into(heat: Float[Tensor, "h w"], box: Box) -> bool:
    """Tell whether the middle of the hottest pixel lies in a box.

    Args:
        heat: one number a pixel; a flat map points nowhere.
        box: left, top, right, bottom in pixels.
    """
    if float(heat.max()) <= float(heat.min()):
        return False
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    left, top, right, bottom = box
    return left <= column + 0.5 <= right and top <= row + 0.5 <= bottom


def inside_share(heat: Float[Tensor, "h w"], box: Box) -> float:
    """Return the share of the heat that lies in a box, in [0, 1]; 0 for a map without heat."""
    rows = torch.arange(heat.shape[0]) + 0.5
    columns = torch.arange(heat.shape[1]) + 0.5
    left, top, right, bottom = box
    inside = ((rows >= top) & (rows <= bottom))[:, None] & ((columns >= left) & (columns <= right))[None, :]
    total = float(heat.sum())
    return float(heat[inside].sum()) / total if total > 0 else 0.0


def step_by_step(
    image: Shaped[Tensor, "c h w"], heat: Float[Tensor, "h w"], *, steps: int = 16, insert: bool = False
) -> Shaped[Tensor, "n c h w"]:
    """Delete a picture from its hottest pixel on, or insert it into a blank one.

    Args:
        image: to begin or to end with.
        heat: what goes first.
        steps: parts of equal size.
        insert: begin with nothing.

    Returns:
        The picture after 0 to `steps` parts.
    """
    gone = first_pixels(heat, [step / steps for step in range(steps + 1)]).unsqueeze(1)
    blank = image.flatten(1).median(1).values.view(1, -1, 1, 1)
    return torch.where(gone, image, blank) if insert else torch.where(gone, blank, image)


def first_pixels(heat: Float[Tensor, "h w"], shares: Sequence[float]) -> Bool[Tensor, "n h w"]:
    """Mark the hottest pixels: for each share that many of them; among equals the first, row by row."""
    count = heat.numel()
    rank = torch.empty(count, dtype=torch.long, device=heat.device)
    rank[heat.flatten().argsort(descending=True, stable=True)] = torch.arange(count, device=heat.device)
    return torch.stack([rank < round(count * share) for share in shares]).view(-1, *heat.shape)


def area_under(scores: Float[Tensor, " n"]) -> float:
    """Return the mean height of a curve between equally distant points, by trapezoids."""
    return float(((scores[1:] + scores[:-1]) / 2).mean())


def ranked_above(weights: Float[Tensor, " n"], wanted: Sequence[bool]) -> float | None:
    """Return how often what is wanted weighs more than what is not, ties as a half; None without one of either kind."""
    right = [float(weight) for weight, is_wanted in zip(weights, wanted, strict=True) if is_wanted]
    wrong = [float(weight) for weight, is_wanted in zip(weights, wanted, strict=True) if not is_wanted]
    if not right or not wrong:
        return None
    wins = sum((good > bad) + (good == bad) / 2 for good in right for bad in wrong)
    return wins / (len(right) * len(wrong))
