"""From one vector to many places: a small transformer that paints patches or says words, each place at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.nn.transformer import Transformer


class Unfold(nn.Module):
    """Gives every place the same vector and its own learned position, and lets the places settle who says what.

    Args:
        dim: width of the vector.
        out: numbers at each place.
        places: how many there are.
        width: of a token.
        layers: blocks.
        heads: attention heads.

    Reference:
        Watters et al. 2019, arXiv 1901.07017 (one vector broadcast to all places), with attention in the place of
        convolutions.
    """

    def __init__(self, dim: int, out: int, *, places: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, width)
        self.positions = nn.Parameter(0.5 * torch.randn(places, width))
        self.transformer = Transformer(width, heads, layers)
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, out)

    def forward(self, vector: Float[Tensor, "b d"]) -> Float[Tensor, "b n e"]:
        """Unfold each vector."""
        made: Tensor = self.leave(self.norm(self.transformer(self.enter(vector)[:, None] + self.positions)))
        return made
