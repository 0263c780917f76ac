"""Evidence lower bound over several modalities: experts multiplied into one Gaussian, and its distance from the prior.

Reference: Kingma & Welling 2013, arXiv 1312.6114 (VAE); Wu & Goodman 2018, arXiv 1802.05335 (MVAE: the prior is an
expert too, and a modality that is missing is an expert left out).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError

Gaussian = tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]
"""Means and logarithms of variances, feature by feature."""


def product_of_experts(experts: Sequence[Gaussian]) -> Gaussian:
    """Multiply Gaussians with each other and with the prior of mean 0 and variance 1.

    Args:
        experts: one for each modality that is there.

    Returns:
        Mean and log variance. For k equal experts of mean m and variance s: variance 1 / (1 + k / s), and a mean of m
        times k / s times that.

    Raises:
        UserError: without an expert.
    """
    if not experts:
        raise UserError("a product of experts needs at least one; without any only the prior is left")
    means, logs = (torch.stack(side) for side in zip(*experts, strict=True))
    # log(1 + sum of 1/variance), safe for any log variance
    precision = torch.cat([torch.zeros_like(logs[:1]), -logs]).logsumexp(0)
    mean = (means * (-logs - precision).exp()).sum(0)
    return mean, -precision


def kl_to_prior(gaussian: Gaussian) -> Float[Tensor, " b"]:
    """Return KL(gaussian || mean 0, variance 1) of each row in nats; 0 when they are the same."""
    mean, log = gaussian
    return (mean.square() + log.exp() - 1 - log).sum(1) / 2


def draw(gaussian: Gaussian, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Turn standard noise into a sample, with gradients to mean and variance."""
    mean, log = gaussian
    return mean + (log / 2).exp() * noise
