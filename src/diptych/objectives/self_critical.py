"""The loss of self-critical training: texts that earn more than their baseline become likelier, others less so.

Reference:
    Rennie et al. 2016, arXiv 1612.00563 (the baseline is the reward of the greedy text); Cornia et al. 2019,
    arXiv 1912.08226 (it is the mean reward of the texts of one picture).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def self_critical(
    log_prob: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    reward: Float[Tensor, " n"],
    baseline: Float[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Weigh the log-probability of each written text by how much more than the baseline it earned (REINFORCE).

    Args:
        log_prob: of each written token, with gradient.
        mask: which tokens are real; the end mark is one, or texts would learn not to end.
        reward: of each text.
        baseline: what it is compared with.

    Returns:
        The mean over texts; its gradient is zero where every reward equals its baseline.
    """
    advantage = (reward - baseline).detach()
    return -(advantage * torch.where(mask, log_prob, 0.0).sum(1)).mean()
