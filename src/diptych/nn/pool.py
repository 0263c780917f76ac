"""From many tokens to few: the mean, attention by the mean (CLIP's ResNet) and attention by learned queries."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.nn.attention import Attention
from diptych.nn.standardise import Standardise


def masked_mean(tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
    """Average the real tokens; zero where there are none."""
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    kept = tokens.masked_fill(~mask.unsqueeze(-1), 0.0)  # what stands in padding may be anything, NaN included
    return kept.sum(1) / weight.sum(1).clamp(min=1.0)


def last_real(tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
    """Take the last real token of each row; zero where there is none."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, -1).amax(1)
    taken = tokens[torch.arange(tokens.shape[0], device=tokens.device), last.clamp(min=0)]
    return taken.masked_fill((last < 0)[:, None], 0.0)


class MeanAttentionPool(nn.Module):
    """CLIP's pooling of a convolution's grid: the mean token asks, and it and all others answer.

    Args:
        dim: channels of the grid.
        heads: attention heads.
        places: height * width of the grid; each place, and the mean, has a learned position.

    Reference:
        Radford et al. 2021, arXiv 2103.00020. Their projection into the joint space comes after, in the model's head.
    """

    def __init__(self, dim: int, heads: int, *, places: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(places + 1, dim) * dim**-0.5)
        self.attention = Attention(dim, heads)

    def forward(self, grid: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Pool the grid's tokens, given row by row."""
        tokens = torch.cat([grid.mean(1, keepdim=True), grid], dim=1) + self.positions
        pooled: Tensor = self.attention(tokens[:, :1], tokens)
        return pooled[:, 0]


class QueryPool(nn.Module):
    """Pooling by learned queries: each looks at all tokens and takes what it wants.

    Args:
        dim: width of the queries and of the result.
        heads: attention heads.
        queries: how many there are.
        context: width of the tokens, where it is another.
    """

    def __init__(self, dim: int, heads: int, *, queries: int = 1, context: int | None = None) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, dim) * dim**-0.5)
        self.attention = Attention(dim, heads, context=context)

    def forward(
        self, tokens: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b q d"]:
        """Pool the real tokens; zero where there are none."""
        pooled: Tensor = self.attention(self.queries.expand(tokens.shape[0], -1, -1), tokens, mask)
        return pooled


class CellGather(nn.Module, ABC):
    """What makes one vector of a frozen tower's tokens.

    Attributes:
        width: of the vector.
        even: the numbers that standardise the tokens; None where they are read as they are.
    """

    width: int
    even: Standardise | None

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b e"]:
        """Gather the real tokens; zero where there are none. Padding must be finite."""


class CellPool(CellGather):
    """Pooling of frozen tokens by learned queries, without values or keys of its own: cheap and hard to overfit.

    Each query scores every token by one linear map and takes the weighted mean of the tokens as they are. Where the
    tokens are to be standardised, the numbers go into the map and onto the means, which is the same (the weights add
    up to one) and spares a copy of all tokens.

    Args:
        dim: width of the tokens.
        queries: how many weighted means are taken.
        drop: chance in [0, 1) that a token is not seen in training.
        standardise: bring each feature of the tokens to mean 0 and deviation 1; `even` holds the numbers.
    """

    def __init__(self, dim: int, *, queries: int, drop: float = 0.0, standardise: bool = False) -> None:
        super().__init__()
        self.width = queries * dim
        self.score = nn.Linear(dim, queries)
        self.even = Standardise(dim) if standardise else None
        self.drop = drop

    def forward(self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b e"]:
        """Return the means of all queries side by side; zero where no token is real. Padding must be finite."""
        seen = mask
        if self.training and self.drop > 0:
            kept = mask & (torch.rand(mask.shape, device=mask.device) >= self.drop)
            seen = torch.where(kept.any(1, keepdim=True), kept, mask)
        scores = self._scores(tokens).float().masked_fill(~seen.unsqueeze(-1), torch.finfo(torch.float32).min)
        weights = scores.softmax(1).masked_fill(~seen.unsqueeze(-1), 0.0)
        means: Tensor = weights.to(tokens.dtype).transpose(1, 2) @ tokens
        if self.even is not None:
            means = self.even(means) * mask.any(1)[:, None, None]
        return means.flatten(1)

    def _scores(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n q"]:
        """Score each token by each query, of its standardised features where that is asked for."""
        if self.even is None:
            plain: Tensor = self.score(tokens)
            return plain
        weight = self.score.weight * self.even.factor
        return F.linear(tokens, weight, self.score.bias - weight @ self.even.mean)
