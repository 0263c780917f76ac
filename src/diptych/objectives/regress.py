"""Regression of a teacher's hidden states (data2vec): smooth L1 at hidden positions, towards averaged upper layers.

Reference: Baevski et al. 2022, arXiv 2202.03555. Targets are the layers given, as in its released code the outputs of
the feed-forward parts before the last residual sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from diptych.core.runtime import mean_over_processes


def averaged_layers(layers: list[Float[Tensor, "b t d"]]) -> Float[Tensor, "b t d"]:
    """Return the target: each layer brought to mean 0 and variance 1 along its width, then averaged; no gradient.

    Args:
        layers: the upper layers of the teacher, which saw everything.
    """
    return torch.stack([F.layer_norm(layer.detach(), layer.shape[-1:]) for layer in layers]).mean(0)


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
