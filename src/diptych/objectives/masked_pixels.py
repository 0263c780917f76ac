"""The loss of a masked autoencoder: mean squared error on the patches that were hidden, and on no other.

Reference: He et al. 2021, arXiv 2111.06377 (MAE); the variance of a patch is unbiased, as in the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from diptych.core.runtime import mean_over_processes

# Keeps a patch of one colour from dividing by zero; the value of the released code, for pixels in [0, 1].
EPS = 1e-6


def masked_pixels(
    predicted: Float[Tensor, "b p d"],
    patches: Float[Tensor, "b p d"],
    hidden: Bool[Tensor, "b p"],
    *,
    normalise: bool = True,
) -> Float[Tensor, ""]:
    """Compare hidden patches with what was predicted for them.

    Args:
        predicted: numbers of each patch as the decoder has them.
        patches: the true ones, pixels in [0, 1].
        hidden: True where the encoder did not see the patch.
        normalise: whether the target of each patch is brought to mean 0 and variance 1 first, which learns better
            features; without it the error is in squared pixels.

    Returns:
        The mean over the hidden patches of every process of the mean squared error; 0 when nothing is hidden. To
        predict the mean of each patch costs (d - 1) / d when normalised.
    """
    target = normalised(patches) if normalise else patches
    each = F.mse_loss(predicted.to(target.dtype), target, reduction="none").mean(-1)
    count = mean_over_processes(hidden.sum().to(each.dtype))
    return torch.where(hidden, each, 0.0).sum() / count.clamp(min=1e-6)


def normalised(patches: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
    """Bring each patch to mean 0 and variance 1."""
    biased = (patches.shape[-1] - 1) / patches.shape[-1]  # torch's one pass for it divides the squares by all numbers
    even: Tensor = biased**0.5 * F.layer_norm(patches, patches.shape[-1:], eps=biased * EPS)
    return even
