"""Prototypes: each class is the mean of its pictures' features, alone or mixed with the vector of its name.

Reference:
    Snell et al. 2017, arXiv 1703.05175. They learn the encoder by episodes and compare Euclidean distances; here the
    encoder is as it was aligned and the features are on the sphere, where both rank alike. The mix is ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from diptych.fewshot.shots import Classifier, Shots, choose

MIXES = tuple(step / 20 for step in range(21))


def class_means(image: Float[Tensor, "n d"], label: Int[Tensor, " n"], *, classes: int) -> Float[Tensor, "c d"]:
    """Return the mean feature of each class, on the sphere again; zero for a class without pictures."""
    means = torch.zeros(classes, image.shape[1], dtype=image.dtype, device=image.device).index_add_(0, label, image)
    return normalize(means, dim=1)  # of a sum as of a mean: the direction is all that counts


def prototype(shots: Shots) -> Classifier:
    """Score by the cosine with the mean picture of each class; the names are not looked at."""
    weights = class_means(shots.image, shots.label, classes=len(shots.text))
    return Classifier(lambda image: shots.scale * image @ weights.T, {})


def prototype_text(shots: Shots) -> Classifier:
    """Score by the cosine with a mix of mean picture and name; the share of the pictures is chosen on validation."""
    means = class_means(shots.image, shots.label, classes=len(shots.text))

    def mixed(share: float) -> Float[Tensor, "c d"]:
        return normalize(share * means + (1 - share) * shots.text, dim=1)

    tried = ((share, shots.scale * shots.valid_image @ mixed(share).T) for share in MIXES)
    share = choose(tried, shots.valid_label, usual=0.5)
    weights = mixed(share)
    return Classifier(lambda image: shots.scale * image @ weights.T, {"share of pictures": share})
