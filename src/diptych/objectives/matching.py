"""The contrastive loss over a matrix of scores, for systems that score a picture with a text together.

Reference: as in `contrastive`; where scores are products of vectors the two are equal, and that one needs no matrix.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diptych.core.runtime import gather


def score_contrastive(scores: Float[Tensor, "b n"], *, group: Int[Tensor, " b"] | None = None) -> Float[Tensor, ""]:
    """Compare the right text of each picture with all texts, and the right picture of each text with all pictures.

    Args:
        scores: this process's pictures with everybody's texts, as logits; text i of this process's own belongs to its
            picture i.
        group: rows that share a number are positives of each other (captions of one picture); None: only row i is.

    Returns:
        The mean of both directions in nats, the same on every process; ln n when all scores are equal.
    """
    whole = gather(scores)
    right = partners(whole, None if group is None else gather(group)).to(whole.dtype)
    loss = whole.new_zeros(())
    for side, wanted in ((whole, right), (whole.T, right.T)):
        target = wanted / wanted.sum(1, keepdim=True)
        loss = loss - (target * side.log_softmax(1)).sum() / len(whole)
    return loss / 2


def partners(whole: Float[Tensor, "n n"], group: Int[Tensor, " n"] | None) -> Bool[Tensor, "n n"]:
    """Say which texts are right for which pictures."""
    names = torch.arange(len(whole), device=whole.device) if group is None else group
    return names[:, None] == names
