"""Mutual learning: two networks that predict the same thing each learn from the other, never through it.

Reference: Zhang et al. 2017, arXiv 1706.00384. They let the networks take turns; here both learn in one step, since
neither's loss has a gradient to the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def mutual_kl(one: Float[Tensor, "b k"], other: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Compare what two networks predict, each as the other's teacher.

    Args:
        one: logits.
        other: logits of the same classes.

    Returns:
        KL(other || one), whose gradient goes to `one` alone, plus KL(one || other), whose gradient goes to `other`
        alone, in nats for each row; 0 when they agree. Summed it is `prediction_kl` both ways round, times the rows.
    """
    mine, theirs = (side.to(torch.promote_types(side.dtype, torch.float32)).log_softmax(1) for side in (one, other))
    teach_one = F.kl_div(mine, theirs.detach(), reduction="none", log_target=True)
    teach_other = F.kl_div(theirs, mine.detach(), reduction="none", log_target=True)
    return (teach_one + teach_other).sum(1)
