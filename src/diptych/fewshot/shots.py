"""Shots: k pictures a class drawn by a seed, their features, and how a setting is chosen on the validation shots.

Reference:
    Zhou et al. 2021, arXiv 2109.01134: min(k, 4) validation pictures a class beside the k to learn from, both from the
    training split. The pictures for k are among those for 2k, so that a curve over k shows more pictures, not others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from diptych.core.errors import UserError

VALID = 4
"""Validation pictures a class at most."""

Scorer: TypeAlias = "Callable[[Float[Tensor, 'b d']], Float[Tensor, 'b c']]"
Choice = TypeVar("Choice")


@dataclass(frozen=True, slots=True)
class Draw:
    """Places of drawn pictures in the list they were drawn from; `short` counts the classes with fewer than k."""

    train: Int64[np.ndarray, " n"]
    valid: Int64[np.ndarray, " m"]
    short: int


@dataclass(frozen=True, slots=True)
class Shots:
    """What a method learns from: unit features of k pictures a class, of the validation pictures, and of the names.

    Args:
        image: of the pictures to learn from.
        label: their classes, from 0.
        valid_image: of the pictures that choose settings.
        valid_label: their classes.
        text: one unit vector a class, made from its name.
        scale: what cosines are multiplied with to become logits, > 0.
    """

    image: Float[Tensor, "n d"]
    label: Int[Tensor, " n"]
    valid_image: Float[Tensor, "m d"]
    valid_label: Int[Tensor, " m"]
    text: Float[Tensor, "c d"]
    scale: float


@dataclass(frozen=True, slots=True)
class Classifier:
    """What a method made: class scores of features, and the settings that the validation pictures chose."""

    score: Scorer
    chosen: dict[str, float]


def draw(label: Int64[np.ndarray, " n"], *, shots: int, seed: int) -> Draw:
    """Draw k pictures a class to learn from and min(k, 4) others to choose settings with.

    Where a class has too few for both, at most a quarter of them (one at least) goes to validation; a class of a
    single picture has none.

    Args:
        label: class of every picture that is not tested on, from 0.
        shots: k, at least 1.
        seed: 0 or more; the same seed draws nested sets for all k.

    Raises:
        UserError: for no pictures, or k below 1.
    """
    if len(label) == 0:
        raise UserError("there is nothing to draw shots from: no picture outside of the test has a class")
    if shots < 1:
        raise UserError(f"shots={shots} is not possible; give 1 or more")
    order = np.random.default_rng((seed, len(label))).permutation(len(label))
    train, valid, short = [], [], 0
    for name in np.unique(label):
        own = order[label[order] == name]
        room = max(len(own) - shots, -(-len(own) // 4))
        held = min(shots, VALID, room, len(own) - 1)
        taken = own[: min(shots, len(own) - held)]
        train.append(taken)
        valid.append(own[len(own) - held :])
        short += len(taken) < shots
    return Draw(np.sort(np.concatenate(train)), np.sort(np.concatenate(valid)), short)


def judge(scores: Float[Tensor, "m c"], label: Int[Tensor, " m"]) -> tuple[float, float]:
    """Rate class scores on validation pictures: accuracy, and where that ties the (negative) cross-entropy in nats.

    Returns:
        Two numbers of which more is better; (0, 0) for no pictures.
    """
    if len(label) == 0:
        return 0.0, 0.0
    right = (scores.argmax(1) == label).double().mean().item()
    return right, -F.cross_entropy(scores.float(), label).item()


def choose(
    candidates: Iterable[tuple[Choice, Float[Tensor, "m c"]]], label: Int[Tensor, " m"], *, usual: Choice
) -> Choice:
    """Choose a setting on the validation pictures; among equals the first.

    Args:
        candidates: settings with the class scores that each gives.
        label: classes of the validation pictures.
        usual: what to take where there are none.
    """
    best, chosen = (-1.0, 0.0), usual
    for candidate, scores in candidates if len(label) > 0 else ():
        found = judge(scores, label)
        if found > best:
            best, chosen = found, candidate
    return chosen
