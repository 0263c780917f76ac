"""Attention of words over words and over what they speak of, in training on whole texts and in writing with caches.

Where texts are written a step at a time there are few queries and many keys, kept for long. Then keys are stored turned
(width before place) and scaled, and the products are written out, which is faster than the fused kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.attention import attend
from diptych.nn.linear import Linear
from diptych.nn.packing import Packing
from diptych.nn.past import Past


@dataclass(frozen=True, slots=True)
class Looked:
    """Keys and values of what is looked at, the heads of all levels in a row; a `turned` key is (i, h, d, n)."""

    key: Float[Tensor, "i h _ _"]
    value: Float[Tensor, "i h n d"]
    turned: bool


def mix_few(
    query: Float[Tensor, "b h q d"],
    turned: Float[Tensor, "b h d s"],
    value: Float[Tensor, "b h s e"],
    hidden: Bool[Tensor, "b 1 _ s"] | None = None,
) -> Float[Tensor, "b h q e"]:
    """Mix values by the softmax of products with turned keys that are scaled already, but for what is hidden."""
    weights = query @ turned
    if hidden is not None:
        weights = weights.masked_fill(hidden, torch.finfo(weights.dtype).min)
    return weights.softmax(-1) @ value


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
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.inward, self.out = Linear(dim, 3 * dim), Linear(dim, dim)
        _draw(self)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        past: Past | None = None,
        hidden: Bool[Tensor, "b 1 q s"] | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Let words look back.

        Args:
            x: whole texts, packed or not, or with `past` the newest words.
            past: gets the keys and values of the newest words.
            hidden: which of all words so far each of the newest does not see; it sees all when None.
            packing: of whole texts.
        """
        inward = self.inward(x)
        query, key, value = _heads(inward if packing is None else packing.pad(inward), 3, self.heads)
        if past is None:
            mixed = attend(query, key, value, causal=True)
        else:
            mixed = mix_few(query, *past.add((self.scale * key).transpose(2, 3), value), hidden)
        found = mixed.transpose(1, 2).flatten(2)
        out: Tensor = self.out(found if packing is None else packing.take(found))
        return out


class CrossAttention(nn.Module):
    """Attention of words over levels of an encoding by one map, whose keys and values are made apart, once.

    Args:
        dim: width of a word.
        heads: parts that the width is split into.
        context: width of what is looked at, where it is another.
    """

    def __init__(self, dim: int, heads: int, *, context: int | None = None) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.query, self.out = Linear(dim, dim), Linear(dim, dim)
        self.inward = Linear(dim if context is None else context, 2 * dim)
        _draw(self)

    def look(self, levels: Sequence[Float[Tensor, "i n c"]], *, turned: bool = False) -> Looked:
        """Return the keys and values of what is looked at, turned for writing."""
        found = [_heads(self.inward(level), 2, self.heads) for level in levels]
        if not turned:
            return Looked(torch.cat([key for key, _ in found], 1), torch.cat([value for _, value in found], 1), False)
        key = torch.cat([(self.scale * key).transpose(2, 3) for key, _ in found], 1)
        return Looked(key, torch.cat([value for _, value in found], 1), True)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        looked: Looked,
        mask: Bool[Tensor, "i 1 1 n"] | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "l b q d"]:
        """Let words look at each level.

        Args:
            x: words of b texts; where there are fewer items to look at, b / i texts in a row share each.
            looked: what `look` gave for i items.
            mask: what of them is real.
            packing: of the texts, where they are packed.
        """
        asked = self.query(x) if packing is None else packing.pad(self.query(x))
        items, heads = looked.value.shape[:2]
        batch, words = asked.shape[:2]
        levels, shared = heads // self.heads, batch // items
        query = asked.view(items, shared, words, self.heads, -1).permute(0, 3, 1, 2, 4).flatten(2, 3)
        query = query.unsqueeze(1).expand(-1, levels, -1, -1, -1).flatten(1, 2)
        if looked.turned:
            mixed = mix_few(query, looked.key, looked.value, None if mask is None else ~mask)
        else:
            mixed = attend(query, looked.key, looked.value, seen=mask)
        apart = mixed.view(items, levels, self.heads, shared, words, -1).permute(1, 0, 3, 4, 2, 5)
        found = apart.reshape(levels, batch, words, -1)
        out: Tensor = self.out(found if packing is None else packing.take(found))
        return out


def _draw(attention: nn.Module) -> None:
    """Draw every map so that what goes in keeps its size; biases are zero."""
    for linear in attention.modules():
        if isinstance(linear, nn.Linear):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
