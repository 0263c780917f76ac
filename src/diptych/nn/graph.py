"""Graphs over the regions of a picture: layers in which each region learns of all others, and what reads the result."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.nn.pool import CellGather, last_real, masked_mean
from diptych.nn.standardise import Standardise

Gather = Literal["gru", "mean"]


class RelationLayer(nn.Module):
    """Every node takes in every other, weighted by how the two relate; at the start it is the identity.

    The weights are products of two linear maps of the nodes, divided by the number of nodes. They are no
    probabilities: a relation may be negative.

    Args:
        dim: width of a node.
        hidden: width in which nodes are related; half of `dim` when None.

    Reference:
        Li et al. 2019, arXiv 1909.02701 (VSRN). The branch ends in a LayerNorm with a gain of zero where VSRN has a
        BatchNorm, so that a picture does not depend on the others of its batch.
    """

    def __init__(self, dim: int, *, hidden: int | None = None) -> None:
        super().__init__()
        inner = max(1, dim // 2) if hidden is None else hidden
        self.query = nn.Linear(dim, inner)
        self.key = nn.Linear(dim, inner)
        self.value = nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.norm.weight)

    def forward(self, nodes: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Relate the real nodes; what stands in padding reaches none of them."""
        y: Tensor = nodes + self.norm(self.out(self.relations(nodes, mask) @ self.value(nodes)))
        return y

    def relations(self, nodes: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n n"]:
        """Return how much of each node (last axis) each node takes in; zero for padding."""
        real = mask.to(nodes.dtype)
        products: Tensor = self.query(nodes) @ self.key(nodes).transpose(1, 2)
        return products * (real / real.sum(1, keepdim=True).clamp(min=1))[:, None]


class RegionGraph(CellGather):
    """Relation layers over regions, then one vector: the last state of a GRU that reads them in order, or their mean.

    Args:
        regions: width of the regions that come in.
        dim: width of a node.
        layers: relation layers.
        gather: "gru", or "mean", for which the order of the regions does not matter.
        dropout: chance in [0, 1) that a whole region is not seen in training.
        standardise: bring each feature of the regions to mean 0 and deviation 1; `even` holds the numbers.
    """

    def __init__(
        self,
        regions: int,
        dim: int,
        *,
        layers: int = 4,
        gather: Gather = "gru",
        dropout: float = 0.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.width = dim
        self.even = Standardise(regions) if standardise else None
        self.dropout = dropout
        self.node = nn.Linear(regions, dim)
        self.relate = nn.ModuleList(RelationLayer(dim) for _ in range(layers))
        self.gru = nn.GRU(dim, dim, batch_first=True) if gather == "gru" else None

    def forward(self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b e"]:
        """Reason over the real regions and gather them; zero where there are none."""
        seen = mask
        if self.training and self.dropout > 0:
            kept = mask & (torch.rand(mask.shape, device=mask.device) >= self.dropout)
            seen = torch.where(kept.any(1, keepdim=True), kept, mask)
        nodes = self.reason(tokens, seen)
        if self.gru is None:
            return masked_mean(nodes, seen)
        states, _ = self.gru(nodes.masked_fill(~seen.unsqueeze(-1), 0.0))
        return last_real(states, mask)

    def reason(self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n e"]:
        """Return the nodes after all layers."""
        nodes: Tensor = self.node(tokens if self.even is None else self.even(tokens))
        for layer in self.relate:
            nodes = layer(nodes, mask)
        return nodes
