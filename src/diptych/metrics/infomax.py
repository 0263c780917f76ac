"""How decided and how varied guesses are, a measure of a classifier that needs no label."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def infomax(logits: Float[Tensor, "b c"]) -> float:
    """Return the mutual information of pictures and guessed classes, as a share of its largest value.

    It is the entropy of the mean guess less the mean entropy of the guesses: large where each picture is given one
    class for sure, and all classes are given as often. Where classes are far from balanced, it misleads.

    Args:
        logits: of each class, for one picture a row.

    Returns:
        0 for guesses that are all alike, 1 for sure ones spread evenly over the classes.

    Reference:
        Shi and Sha 2012, ICML, "Information-Theoretical Learning of Discriminative Clusters for Unsupervised Domain
        Adaptation".
    """
    chances = logits.double().softmax(1)
    mean = chances.mean(0)
    inside = -(chances * chances.clamp(min=1e-300).log()).sum(1).mean()
    whole = -(mean * mean.clamp(min=1e-300).log()).sum()
    return float((whole - inside) / math.log(logits.shape[1]))
