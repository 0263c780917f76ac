"""Attention of words over words and over what they speak of, in training on whole texts and in writing with caches."""

from __future__ import annotations

from typing import TypeAlias

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.attention import attend
from diptych.nn.past import Past

KeyValue: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values, each (b, h, n, d)."""


def _heads(x: Float[Tensor, "b n e"], parts: int, heads: int) -> Float[Tensor, "s b h n d"]:
    """Split the width into parts, and each part into heads."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)


class SelfAttention(nn.Module):
    """Causal attention of words over the words before, with or without a cache.

    Args:
        dim: width of a word.
        heads: parts that the width is split into.

    Raises:
        UserError: when the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads != 0:
            raise UserError(f"the width must be a multiple of the heads, got dim={dim} and heads={heads}")
        self.heads = heads
        self.inward, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        _draw(self)

    def forward(
        self, x: Float[Tensor, "b q d"], past: Past | None = None, seen: Bool[Tensor, "b 1 q s"] | None = None
    ) -> Float[Tensor, "b q d"]:
        """Let words look back.

        Args:
            x: whole texts, or with `past` the newest words.
            past: gets the keys and values of the newest words.
            seen: which of all words so far each of the newest sees; all when None.
        """
        query, key, value = _heads(self.inward(x), 3, self.heads)
        if past is None:
            mixed = attend(query, key, value, causal=True)
        else:
            key, value = past.add(key, value)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Attention of words over what was looked at, whose keys and values are made apart, once.

    Args:
        dim: width of a word.
        heads: parts that the width is split into.
        context: width of what is looked at, where it is another.
    """

    def __init__(self, dim: int, heads: int, *, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.inward = nn.Linear(dim if context is None else context, 2 * dim)
        _draw(self)

    def look(self, context: Float[Tensor, "b n c"]) -> KeyValue:
        """Return the keys and values of what is looked at."""
        key, value = _heads(self.inward(context), 2, self.heads)
        return key.contiguous(), value.contiguous()

    def ask(self, x: Float[Tensor, "b q d"]) -> Float[Tensor, "b h q e"]:
        """Return the queries of some words."""
        query: Tensor = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return query

    def answer(
        self, query: Float[Tensor, "b h q e"], looked: KeyValue, seen: Bool[Tensor, "i 1 1 n"] | None = None
    ) -> Float[Tensor, "b q d"]:
        """Return what the queries find.

        Args:
            query: of b texts; where there are fewer items to look at, b / i texts in a row share each.
            looked: keys and values of i items.
            seen: what of them is real.
        """
        items, words = len(looked[0]), query.shape[2]
        shared = query.view(items, -1, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mixed = attend(shared, *looked, seen=seen)
        apart = mixed.view(items, self.heads, -1, words, mixed.shape[3]).permute(0, 2, 3, 1, 4)
        out: Tensor = self.out(apart.flatten(3).flatten(0, 1))
        return out

    def forward(
        self, x: Float[Tensor, "b q d"], looked: KeyValue, seen: Bool[Tensor, "i 1 1 n"] | None = None
    ) -> Float[Tensor, "b q d"]:
        """Let words look."""
        return self.answer(self.ask(x), looked, seen)


def _draw(attention: nn.Module) -> None:
    """Draw every map so that what goes in keeps its size; biases are zero."""
    for linear in attention.modules():
        if isinstance(linear, nn.Linear):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
