"""Scores of classification: top-k accuracy, mean accuracy per class, and who was taken for whom."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.errors import UserError


def accuracy(
    scores: Float[Tensor, "b c"], label: Int[Tensor, " b"], *, ks: tuple[int, ...] = (1, 5)
) -> dict[str, float]:
    """Score class scores against the true classes.

    A class that scores exactly as much as the true one counts as before it, so constant scores are right only when
    K covers every class.

    Args:
        scores: logits, probabilities or similarities; larger is likelier.
        label: true class, from 0.
        ks: the K of top-K; a K over the number of classes gives 1.

    Returns:
        `"top1"`, `"top5"` (one for each K): share of examples whose class is among the K best; `"mean_per_class"`:
        top-1 accuracy averaged over the classes that occur, each counting the same. All in [0, 1].

    Raises:
        UserError: for no examples, a label that is no class, or scores that are not finite.
    """
    _check(label, scores.shape[1])
    if not bool(scores.isfinite().all()):
        raise UserError("cannot score: some class scores are NaN or infinite; look at the training of the model")
    scores = scores.float()
    rank = (scores >= scores.gather(1, label[:, None])).sum(1)
    right = (rank == 1).double()
    count = torch.bincount(label, minlength=scores.shape[1])
    each = torch.bincount(label, weights=right, minlength=scores.shape[1])[count > 0] / count[count > 0]
    tops = {f"top{k}": (rank <= k).double().mean().item() for k in ks}
    return tops | {"mean_per_class": each.mean().item()}


def confusion(guess: Int[Tensor, " b"], label: Int[Tensor, " b"], *, classes: int) -> Int[Tensor, "c c"]:
    """Count how often each class (row) was taken for each class (column).

    Raises:
        UserError: for no examples, or a guess or label outside 0 ... classes - 1.
    """
    _check(label, classes)
    _check(guess, classes)
    return torch.bincount(label * classes + guess, minlength=classes * classes).reshape(classes, classes)


def _check(label: Int[Tensor, " b"], classes: int) -> None:
    if len(label) == 0:
        raise UserError("cannot score classes: there are no examples")
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= classes:
        raise UserError(f"class {low if low < 0 else high} is not one of the {classes} classes (0 to {classes - 1})")
