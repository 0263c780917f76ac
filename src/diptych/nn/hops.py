"""Stacked attention: a question looks at the cells of a picture several times, each time knowing what it has seen."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.nn.linear import Linear


class Hop(nn.Module):
    """One look: p = softmax(w . tanh(W_I V + W_Q u + b)), and what is seen is the mean of the cells by p.

    Args:
        dim: width of cells and question.
        hidden: width inside.
    """

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.cells, self.question = Linear(dim, hidden, bias=False), Linear(dim, hidden)
        self.score = Linear(hidden, 1, bias=False)

    def forward(
        self, question: Float[Tensor, "b d"], cells: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n"]]:
        """Return what is seen, and the weights; both zero where no cell is real."""
        logits = self.score((self.cells(cells) + self.question(question).unsqueeze(1)).tanh()).squeeze(2).float()
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(1).masked_fill(~mask, 0.0)
        return (weights.to(cells.dtype).unsqueeze(1) @ cells).squeeze(1), weights


class StackedAttention(nn.Module):
    """Hops one after another, u_k = u_(k-1) + what hop k sees, from u_0 = the question.

    Args:
        dim: width of cells and question.
        hops: how many; 0 takes the mean of the cells.
        hidden: width inside a hop.

    Reference:
        Yang et al. 2015, Stacked Attention Networks, arXiv 1511.02274.
    """

    def __init__(self, dim: int, *, hops: int = 2, hidden: int | None = None) -> None:
        super().__init__()
        self.hops = nn.ModuleList(Hop(dim, hidden=dim if hidden is None else hidden) for _ in range(hops))

    def forward(
        self, question: Float[Tensor, "b d"], cells: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k n"]]:
        """Return the sum of what was seen, u_K - u_0, and the weights of every hop. Padding must be finite."""
        even = mask / mask.sum(1, keepdim=True).clamp(min=1)
        if len(self.hops) == 0:
            return (even.to(cells.dtype).unsqueeze(1) @ cells).squeeze(1), even.unsqueeze(1)
        seen, weights = torch.zeros_like(question), []
        for hop in self.hops:
            now, weight = hop(question + seen, cells, mask)
            seen = seen + now
            weights.append(weight)
        return seen, torch.stack(weights, dim=1)
