"""Scores of generated pictures from what a network makes of them: Frechet distance and inception score.

Both see only features or probabilities. Neither can be compared with a number that was measured on the outputs of
another network, with another count of pictures or against other real ones, so print all of these beside it.

Reference: Heusel et al. 2017, arXiv 1706.08500; Salimans et al. 2016, arXiv 1606.03498.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from diptych.core.errors import UserError


def frechet_distance(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
    """Return the squared Frechet distance of two sets of features, each taken as normally distributed.

    Args:
        one: features of pictures, such as generated ones.
        other: features of others, such as real ones.

    Returns:
        0 for equal sets, in squared units of the features. Small sets give too large a distance.

    Raises:
        UserError: when a set has fewer than two rows, or a feature is no number.
    """
    moments = [_moments(values) for values in (one, other)]
    return frechet_of_normals(*moments[0], *moments[1])


def frechet_of_normals(
    mean: Float[np.ndarray, " d"],
    covariance: Float[np.ndarray, "d d"],
    other_mean: Float[np.ndarray, " d"],
    other_covariance: Float[np.ndarray, "d d"],
) -> float:
    """Return the squared Frechet distance of two normal distributions.

    The trace of the root of C1 C2 is the sum of the roots of the eigenvalues of C1^1/2 C2 C1^1/2, which is symmetric,
    so that singular covariances do no harm.

    Returns:
        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2); 7 for N((0, 0), I) and N((1, 2), 4 I).
    """
    first, second = covariance.astype(np.float64), other_covariance.astype(np.float64)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ second @ root).clip(min=0)
    apart = np.square(mean.astype(np.float64) - other_mean.astype(np.float64)).sum()
    return max(0.0, float(apart + np.trace(first) + np.trace(second) - 2 * np.sqrt(product).sum()))


def inception_score(probabilities: Float[np.ndarray, "n c"], *, splits: int = 10) -> tuple[float, float]:
    """Say how sure a classifier is of each picture and how varied it finds all of them.

    Args:
        probabilities: of each class for each picture; rows add up to 1.
        splits: parts that are scored by themselves, each of consecutive rows; fewer where there are fewer rows.

    Returns:
        Mean and standard deviation over the parts of exp(mean KL(p(y|x) | p(y))): from 1, for a classifier that says
        the same of every picture, to the number of classes, for sure and balanced ones.

    Raises:
        UserError: when there is no row.
    """
    if len(probabilities) == 0:
        raise UserError("inception score of no pictures: give the probabilities of at least one")
    parts = np.array_split(probabilities.astype(np.float64), min(splits, len(probabilities)))
    scores = [_sure_and_varied(part) for part in parts]
    return float(np.mean(scores)), float(np.std(scores))


def _sure_and_varied(probabilities: Float64[np.ndarray, "n c"]) -> float:
    """Return exp(H(mean) - mean H): what is sure and varied has much of the first entropy and little of the second."""
    of_all = _entropy(probabilities.mean(0, keepdims=True))[0]
    return float(np.exp(of_all - _entropy(probabilities).mean()))


def _entropy(probabilities: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, " n"]:
    """Return entropies in nats; what has no chance adds nothing."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    entropies: Float64[np.ndarray, " n"] = -(probabilities * logs).sum(1)
    return entropies


def _moments(values: Float[np.ndarray, "n d"]) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d d"]]:
    if len(values) < 2:
        raise UserError(f"the Frechet distance needs two pictures in each set, got {len(values)}")
    if not np.isfinite(values).all():
        raise UserError("the Frechet distance needs features that are numbers, but one is not finite")
    exact = values.astype(np.float64)
    return exact.mean(0), np.atleast_2d(np.cov(exact, rowvar=False))
