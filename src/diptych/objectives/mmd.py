"""Maximum mean discrepancy: how far two samples are apart as distributions, by kernels; to be made small.

Reference: Gretton et al. 2012, JMLR 13 (both estimators); Long et al. 2015, arXiv 1502.02791 (DAN, several kernels).
Here the samples may differ in number of rows, the bandwidth counts no row with itself, and the unbiased estimate leaves
the diagonal out for any number of kernels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.runtime import gather
from diptych.objectives.skipgram import full

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def mmd(
    source: Float[Tensor, "m d"],
    target: Float[Tensor, "n d"],
    *,
    sigma: float | None = None,
    factors: tuple[float, ...] = FACTORS,
    unbiased: bool = False,
) -> Float[Tensor, ""]:
    """Return the squared discrepancy between two samples under Gaussian kernels; rows of every process count.

    Args:
        source: one vector a row.
        target: the other sample, of any number of rows.
        sigma: width of the kernel exp(-distance^2 / (2 sigma^2)); None takes the mean squared distance between
            different rows of both samples for sigma^2, without gradient.
        factors: what sigma^2 is multiplied with, one kernel each; their mean is taken. (1.0,) is a single kernel.
        unbiased: whether to leave out each row's kernel with itself; the estimate can then be negative.

    Returns:
        0 for equal samples (biased), at most 2.

    Raises:
        UserError: when a sample has too few rows.
    """
    source, target = gather(source), gather(target)
    if min(len(source), len(target)) < (2 if unbiased else 1):
        raise UserError(
            f"the discrepancy of {len(source)} and {len(target)} rows is not defined: "
            f"give at least {2 if unbiased else 1} of each"
        )
    square = _squared_distances(torch.cat([source, target]))
    middle = _mean_distance_squared(square) if sigma is None else sigma**2
    kernel = torch.stack([torch.exp(-square / (2 * factor * middle)) for factor in factors]).mean(0)
    m = len(source)
    inside = [_within(part, unbiased=unbiased) for part in (kernel[:m, :m], kernel[m:, m:])]
    return inside[0] + inside[1] - 2 * kernel[:m, m:].mean()


def mean_distance(source: Float[Tensor, "m d"], target: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the squared distance between the means, the discrepancy under a linear kernel (it sees nothing else)."""
    return (gather(source).mean(0) - gather(target).mean(0)).square().sum()


def _squared_distances(rows: Float[Tensor, "k d"]) -> Float[Tensor, "k k"]:
    # Seen from their centre, distances keep more digits; half precision would lose the small ones.
    with torch.autocast(rows.device.type, enabled=False):
        rows = full(rows)
        rows = rows - rows.detach().mean(0)
        norms = rows.square().sum(1)
        return (norms[:, None] + norms - 2 * rows @ rows.T).clamp(min=0)


def _mean_distance_squared(square: Float[Tensor, "k k"]) -> Float[Tensor, ""]:
    count = len(square)
    return (square.detach().sum() / max(count * (count - 1), 1)).clamp(min=1e-12)


def _within(kernel: Float[Tensor, "k k"], *, unbiased: bool) -> Float[Tensor, ""]:
    if not unbiased:
        return kernel.mean()
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
