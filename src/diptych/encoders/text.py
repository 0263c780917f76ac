"""The built-in text tower, sized at will: CLIP's causal transformer, or a bidirectional one."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import unknown
from diptych.encoders.base import TextEncoder
from diptych.encoders.offers import WordTable
from diptych.nn.pool import last_real, masked_mean
from diptych.nn.transformer import Transformer


class TextTransformer(TextEncoder, WordTable):
    """A transformer over token ids. CLIP's is 49408, 77, 512, 12, 8, "last", "quick_gelu".

    Args:
        vocabulary: how many token ids there are.
        context: the most tokens it can read.
        dim: width of a token.
        layers: blocks.
        heads: attention heads.
        pool: "last" (causal, read at the last real token, the end of text, as in CLIP) or "mean" (bidirectional).
        activation: "quick_gelu" for OpenAI's weights, or "gelu".
        dropout: chance in [0, 1).

    Raises:
        UserError: for another pool.

    Reference:
        Radford et al. 2021, arXiv 2103.00020. They read where the token id is highest; here the mask tells the end.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int = 32,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        pool: str = "last",
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, context=context)
        if pool not in ("last", "mean"):
            raise unknown("text pool", pool, ("last", "mean"))
        self.pool, self.heads, self.activation = pool, heads, activation
        self.embedding = nn.Embedding(vocabulary, dim)
        self.positions = nn.Parameter(0.01 * torch.randn(context, dim))
        self.transformer = Transformer(
            dim, heads, layers, activation=activation, dropout=dropout, causal=pool == "last"
        )
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def recipe(self) -> str:
        """Return the kind and sizes."""
        return f"transformer {self.context} {self.heads} {self.pool} {self.activation}"

    def word_table(self) -> nn.Embedding:
        """Return the table of the word vectors."""
        return self.embedding

    def encode(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> States:
        """Encode token ids."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        # A real token sees no padding anyway when it looks only back: the kernel is faster without a mask.
        x = self.norm(self.transformer(x, None if self.pool == "last" else mask))
        return States(x, mask, last_real(x, mask) if self.pool == "last" else masked_mean(x, mask))
