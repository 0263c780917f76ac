"""Stacked attention: a question looks at the cells of a picture several times, each time knowing what it has seen."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
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
        self,
        question: Float[Tensor, "b d"],
        cells: Float[Tensor, "i n d"],
        mask: Bool[Tensor, "b n"],
        picture: Int[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n"]]:
        """Return what is seen, and the weights; both zero where no cell is real. Each picture is mapped once."""
        mapped = _of(self.cells(cells), picture)
        logits = self.score((mapped + self.question(question).unsqueeze(1)).tanh()).squeeze(2).float()
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(1).masked_fill(~mask, 0.0)
        return (weights.to(cells.dtype).unsqueeze(1) @ _of(cells, picture)).squeeze(1), weights


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
        self,
        question: Float[Tensor, "b d"],
        cells: Float[Tensor, "i n d"],
        mask: Bool[Tensor, "b n"],
        picture: Int[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k n"]]:
        """Return the sum of what was seen, u_K - u_0, and the weights of every hop.

        Args:
            question: what is asked.
            cells: of each question's picture, or of each picture once; padding must be finite.
            mask: which cells are real to each question.
            picture: which one each question is about, where each stands once.
        """
        even = mask / mask.sum(1, keepdim=True).clamp(min=1)
        if len(self.hops) == 0:
            return (even.to(cells.dtype).unsqueeze(1) @ _of(cells, picture)).squeeze(1), even.unsqueeze(1)
        seen, weights = torch.zeros_like(question), []
        for hop in self.hops:
            now, weight = hop(question + seen, cells, mask, picture)
            seen = seen + now
            weights.append(weight)
        return seen, torch.stack(weights, dim=1)


def _of(cells: Float[Tensor, "i n d"], picture: Int[Tensor, " b"] | None) -> Float[Tensor, "b n d"]:
    """Give each question the cells of its picture."""
    return cells if picture is None else cells.index_select(0, picture)
