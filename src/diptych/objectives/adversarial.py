"""Adversarial alignment: a judge tells modalities or domains apart, and reversed gradients make that impossible.

Alone it matches only the distributions and may swap classes: always combine it with pairs or labels.

Reference: Ganin & Lempitsky 2014, arXiv 1409.7495, and Ganin et al. 2015, arXiv 1505.07818 (reversal and schedule);
Wang et al. 2017, ACM MM (ACMR, between modalities).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.runtime import mean_over_processes


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * -ctx.strength, None


def reverse_gradient(x: Float[Tensor, "..."], *, strength: float) -> Float[Tensor, "..."]:
    """Return x as it is; on the way back its gradient is multiplied by minus the strength.

    Args:
        x: features that must not tell the judge anything.
        strength: >= 0; at 0 the judge learns and the features do not notice.
    """
    reversed_: Tensor = _Reverse.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def reversal_strength(progress: float, *, top: float = 0.3, steepness: float = 10.0) -> float:
    """Return the strength for a point of the training: 0 at its start, nearly `top` at its end.

    Args:
        progress: share of the training that is done, in [0, 1].
        top: where it ends. The papers take 1, with which training often falls below no adaptation at all.
        steepness: how fast it rises.

    Returns:
        top * (2 / (1 + exp(-steepness * progress)) - 1).

    Raises:
        UserError: for a progress outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise UserError(f"progress is {progress}, allowed is a share of the training from 0 to 1")
    return top * (2 / (1 + math.exp(-steepness * progress)) - 1)


def tell_apart(logits: Float[Tensor, " b"], first: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return the judge's loss: binary cross-entropy, the two kinds weighing the same however many rows each has.

    Rows are counted over every process.

    Args:
        logits: what the judge thinks; positive means the first kind.
        first: which rows are of the first kind (pictures, or the source domain).

    Returns:
        The loss in nats; ln 2 for a judge that cannot tell. A kind without rows is left out.
    """
    each = F.binary_cross_entropy_with_logits(logits, first.to(logits.dtype), reduction="none")
    sums = torch.stack([each[first].sum(), each[~first].sum()])
    count = mean_over_processes(torch.stack([first.sum(), (~first).sum()]).to(logits.dtype))
    return (sums / count.clamp(min=1e-6)).sum() / (count > 0).sum().clamp(min=1)
