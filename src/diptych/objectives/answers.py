"""Answers: how wrong the scores of all known answers are, against one right answer or against what several people said.

Reference:
    Softmax over the commonest answers: Antol et al. 2015, VQA, arXiv 1505.00468. Sigmoids with soft targets: Anderson
    et al. 2017, arXiv 1707.07998, and Teney et al. 2017, arXiv 1708.02711.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def one_answer(logits: Float[Tensor, "b a"], answer: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return -log p of the right answers, the mean in nats over the rows whose answer is known (not -1).

    Returns:
        0 where no row's is.
    """
    known = answer >= 0
    each = F.cross_entropy(logits, answer.clamp(min=0), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def soft_answers(logits: Float[Tensor, "b a"], scores: Float[Tensor, "b a"]) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of every answer with what it is worth, in nats: summed, then averaged over rows.

    Args:
        logits: of each answer, judged by itself.
        scores: what each would be worth, in [0, 1].
    """
    return F.binary_cross_entropy_with_logits(logits, scores, reduction="sum") / max(1, len(logits))


def share_right(logits: Float[Tensor, "b a"], answer: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return how often the likeliest answer is the right one, for the log."""
    return (logits.detach().argmax(1) == answer).to(torch.float32).mean()
