"""Standardise: features of a frozen tower, each brought to mean 0 and deviation 1 over the training data."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.runtime import add_over_processes

FLOOR = 1e-2
"""Share of the typical deviation added to each: a feature that never changes in training stays small elsewhere."""


class Standardise(nn.Module):
    """Shifts and scales each feature by numbers learnt from one look at the data; the identity before it.

    Gradient descent finds the large directions of raw features first and the telling ones late; after this they begin
    equal. Nothing here is trained, and unlike BatchNorm an example does not depend on the others of its batch.

    Args:
        dim: number of features.
    """

    mean: Tensor
    factor: Tensor
    sums: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("factor", torch.ones(dim))
        self.register_buffer("sums", torch.zeros(3, dim, dtype=torch.float64), persistent=False)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Shift and scale."""
        return (x - self.mean) * self.factor

    @torch.no_grad()
    def look(self, x: Float[Tensor, "... d"], mask: Bool[Tensor, "..."] | None = None) -> None:
        """Take in some features; `mask` says which are real."""
        rows = (x if mask is None else x[mask]).reshape(-1, x.shape[-1]).double()
        self.sums += torch.stack([torch.full_like(self.mean, len(rows)).double(), rows.sum(0), rows.square().sum(0)])

    @torch.no_grad()
    def settle(self) -> None:
        """Take the numbers of all that was seen, by every process, and forget it; nothing where nothing was seen."""
        count, total, squares = add_over_processes(self.sums)
        if float(count[0]) == 0:
            return
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.factor.copy_(1 / (deviation + FLOOR * deviation.mean() + torch.finfo(torch.float32).tiny))
        self.sums.zero_()
