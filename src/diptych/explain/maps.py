"""Heat maps of one side of a pair, by the methods that look into a tower."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from diptych.core.errors import UserError
from diptych.explain.gradcam import grad_cam, place_cam
from diptych.explain.passing import Pass
from diptych.explain.steps import by_relevance, by_rollout

SCALES = 3  # sizes of the grid that Grad-CAM looks at, from the coarsest on: finer ones show edges, not things
CAMS = {"gradcam": grad_cam, "hirescam": place_cam}
_LEAST = 1e-12

Layer: TypeAlias = tuple[Tensor, Tensor]
"""Features of the places, (n, d), and the gradient of the value with respect to them."""


def picture_map(one: Pass, score: Float[Tensor, ""], method: str) -> Float[Tensor, "i j"]:
    """Make the heat map of one method: Grad-CAM's is the mean over several sizes of the grid.

    Raises:
        UserError: where the method cannot see into the tower.
    """
    if method in CAMS:
        return _mean([square(CAMS[method](*layer)) for layer in scales(resolved(one, score))])
    return square(by_rollout(one, score) if method == "rollout" else by_relevance(one, score))


def candidates(one: Pass, score: Float[Tensor, ""]) -> dict[str, Float[Tensor, "_ _"]]:
    """Make every map that the tower allows: of each method, and of Grad-CAM's on each size of the grid alone."""
    found = {}
    layers = scales(resolved(one, score))
    for name, cam in CAMS.items():
        maps = [square(cam(*layer)) for layer in layers]
        found[name] = _mean(maps)
        if len(maps) > 1:
            found |= {f"{name} on {len(each)} x {len(each)}": each for each in maps}
    if one.record.readable():
        found["relevance"] = square(by_relevance(one, score))
    return found


def token_map(one: Pass, score: Float[Tensor, ""], method: str) -> Float[Tensor, " t"]:
    """Weigh the tokens of a text; both kinds of Grad-CAM are the same here, each token by its own gradient.

    Raises:
        UserError: where the method cannot see into the tower.
    """
    if method in CAMS:
        return place_cam(*resolved(one, score)[-1])
    return by_rollout(one, score) if method == "rollout" else by_relevance(one, score)


def resolved(one: Pass, score: Float[Tensor, ""]) -> list[Layer]:
    """Return features with their gradient, from the first layer on, as far as places differ in what they do.

    Behind the last attention of a class token only that token matters: no place has a gradient there.
    """
    features = one.features()
    gradients = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True, materialize_grads=True)
    pairs = [(one.rows(kept.detach()), one.rows(gradient)) for kept, gradient in zip(features, gradients, strict=True)]
    several = [pair for pair in pairs if int((pair[1] != 0).any(1).sum()) > 1]
    return several or pairs[:1]


def scales(layers: Sequence[Layer]) -> list[Layer]:
    """Keep the last layer of each size of grid, of the coarsest sizes."""
    last = {len(features): (features, gradient) for features, gradient in layers}
    return [last[size] for size in sorted(last)[:SCALES]]


def square(places: Float[Tensor, " n"]) -> Float[Tensor, "s s"]:
    """Lay places, row by row, out as the grid that they are."""
    side = isqrt(len(places))
    if side * side != len(places):
        raise UserError(f"the image tower gives {len(places)} places, which are no square grid: use method=occlusion")
    return places.view(side, side)


def resized(grid: Float[Tensor, "i j"], side: int) -> Float[Tensor, "s s"]:
    """Bring a map to another size, smoothly."""
    return F.interpolate(grid[None, None].float(), size=(side, side), mode="bilinear", align_corners=False)[0, 0]


def shifted(image: Shaped[Tensor, "c h w"], down: int, right: int) -> Shaped[Tensor, "c h w"]:
    """Move a picture by some pixels; what comes in at the rim repeats the last pixels there."""
    rows = (torch.arange(image.shape[1], device=image.device) - down).clamp(0, image.shape[1] - 1)
    columns = (torch.arange(image.shape[2], device=image.device) - right).clamp(0, image.shape[2] - 1)
    return image[:, rows][:, :, columns]


def unit(grid: Float[Tensor, "i j"]) -> Float[Tensor, "i j"]:
    """Give a map a height of one; zeros stay so."""
    return grid / grid.max().clamp(min=_LEAST)


def _mean(maps: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "s s"]:
    """Average maps of several sizes, each with a height of one."""
    side = max(len(each) for each in maps)
    return torch.stack([resized(unit(each), side) for each in maps]).mean(0)
