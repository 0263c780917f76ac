"""Grad-CAM: the places whose features, weighted by how a value grows with them, speak for that value.

Reference:
    Selvaraju et al. 2016, arXiv 1610.02391 (channels weighted by their mean gradient); Draelos & Carin 2020, arXiv
    2011.08891 (HiResCAM: each place weighted by its own gradient).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Cam: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From features (n, d) and their gradient to the evidence of each place (n)."""


def grad_cam(features: Float[Tensor, "n d"], gradient: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Weigh each channel by its mean gradient over the places; what speaks against the value counts as nothing.

    Args:
        features: of the places of a grid, or of the tokens of a text.
        gradient: of the value explained, with respect to the features.

    Returns:
        Evidence of each place, >= 0. For a network of a global mean and a linear map, the class's activation map / n.
    """
    return (features @ gradient.mean(0)).clamp(min=0)


def place_cam(features: Float[Tensor, "n d"], gradient: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Weigh each place by its own gradient: right also where the network treats its places differently.

    Arguments and result as for `grad_cam`, which it equals where every place has the same gradient.
    """
    return (features * gradient).sum(1).clamp(min=0)


def cells_for(
    values: Callable[[Float[Tensor, "b n d"]], Float[Tensor, " s"]],
    cells: Float[Tensor, "b n d"],
    *,
    cam: Cam = place_cam,
) -> Float[Tensor, "s b n"]:
    """Say for each of several values which cells speak for it, as for each word of a caption or for an answer.

    Args:
        values: from the cells of a grid to the values explained, such as the log-probability of each word; in one pass.
        cells: what the rest of a model looks at, in the place of the picture.
        cam: `grad_cam` or `place_cam`.

    Returns:
        Evidence of each cell for each value, >= 0; zeros for a value that does not depend on the cells.

    Raises:
        RuntimeError: when `values` computes without gradient.
    """
    with torch.enable_grad():
        leaf = cells.detach().requires_grad_()
        found = values(leaf)
        maps = []
        for number, value in enumerate(found):
            kept = number + 1 < len(found)
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=kept, materialize_grads=True)
            maps.append(torch.stack([cam(*each) for each in zip(leaf.detach(), gradient, strict=True)]))
    return torch.stack(maps) if maps else cells.new_zeros(0, *cells.shape[:2])
