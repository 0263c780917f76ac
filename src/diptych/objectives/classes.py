"""Naming the class: cross-entropy over the rows that have one."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.runtime import mean_over_processes


def name_classes(logits: Float[Tensor, "b c"], label: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return the cross-entropy of the classes, as a mean over the labelled rows of every process.

    Args:
        logits: for each class.
        label: from 0; below 0 where a row has no class, which counts for nothing.

    Returns:
        The loss in nats; 0 when no row has a class.
    """
    each = F.cross_entropy(logits, label.clamp(min=0), reduction="none")
    real = (label >= 0).to(each.dtype)
    return (each * real).sum() / mean_over_processes(real.sum()).clamp(min=1e-6)
