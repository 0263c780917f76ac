"""Regression of a teacher's hidden states (data2vec): smooth L1 at hidden positions, towards averaged upper layers.

Reference: Baevski et al. 2022, arXiv 2202.03555. Targets are the layers given, as in its released code the outputs of
the feed-forward parts before the last residual sum.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from diptych.core.runtime import mean_over_processes


def averaged_layers(
    layers: list[Float[Tensor, "b t d"]],
    real: Bool[Tensor, "b t"] | None = None,
    *,
    over: Literal["width", "tokens"] = "width",
) -> Float[Tensor, "b t d"]:
    """Return the target: each layer brought to mean 0 and variance 1, then averaged; no gradient.

    Args:
        layers: the upper layers of the teacher, which saw everything.
        real: which tokens are no padding; all when None.
        over: "width" of each token (the paper's choice for pictures and texts), or all "tokens" of an example, feature
            by feature (its choice for speech): then what all tokens have in common is gone.
    """
    if over == "width":
        return torch.stack([F.layer_norm(layer.detach(), layer.shape[-1:]) for layer in layers]).mean(0)
    real = torch.ones(layers[0].shape[:2], dtype=torch.bool, device=layers[0].device) if real is None else real
    return torch.stack([_over_tokens(layer.detach().float(), real) for layer in layers]).mean(0)


def _over_tokens(layer: Float[Tensor, "b t d"], real: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
    weight = real.unsqueeze(-1).to(layer.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    own = (layer - (weight * layer).sum(1, keepdim=True) / count) * weight
    return own * (own.square().sum(1, keepdim=True) / count + 1e-5).rsqrt()


def regress(
    predicted: Float[Tensor, "b t d"],
    target: Float[Tensor, "b t d"],
    hidden: Bool[Tensor, "b t"],
    *,
    beta: float = 2.0,
) -> Float[Tensor, ""]:
    """Compare predictions with the teacher's states at hidden positions.

    Args:
        predicted: the student's states.
        target: the teacher's, from `averaged_layers`; no gradient.
        hidden: True where the student did not see the input.
        beta: where the loss turns from quadratic (below) to linear (above); > 0.

    Returns:
        The mean over the hidden positions of every process of the mean smooth L1 error; 0 when nothing is hidden.
    """
    each = F.smooth_l1_loss(predicted, target.detach(), beta=beta, reduction="none").mean(-1)
    count = mean_over_processes(hidden.sum().to(each.dtype))
    return torch.where(hidden, each, 0.0).sum() / count.clamp(min=1e-6)


@torch.no_grad()
def spread(states: Float[Tensor, "b t d"], hidden: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Return how far states differ from example to example, at the same place: 0 when all examples get the same.

    What differs from place to place alone does not count, since it may come from the positions.

    Args:
        states: targets or predictions.
        hidden: where they are looked at.

    Returns:
        The variance over the examples in which a place is hidden, averaged over such places and the width.
    """
    states, weight = states.float(), hidden.unsqueeze(-1).to(torch.float32)
    count = weight.sum(0)
    mean = (weight * states).sum(0) / count.clamp(min=1)
    squares = (weight * (states - mean).square()).sum(0) * (count > 1)
    return squares.mean(-1).sum() / (count * (count > 1)).sum().clamp(min=1)
