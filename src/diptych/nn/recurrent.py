"""Recurrent layers: a writer that says the next word of a text from what a picture shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.nn.attention import Attention
from diptych.nn.pool import masked_mean


class Writer(nn.Module):
    """A GRU over the words so far, begun from the mean of some regions, which looks at the regions before each word.

    Args:
        vocabulary: how many token ids there are.
        dim: width of the regions, the words and the state.
        heads: of the look at the regions.
    """

    def __init__(self, vocabulary: int, dim: int, *, heads: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.begin = nn.Linear(dim, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.look = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, vocabulary)

    def forward(
        self, tokens: Int[Tensor, "b t"], regions: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b t v"]:
        """Return for each place the logits of the word after it."""
        begin = torch.tanh(self.begin(masked_mean(regions, mask)))
        states, _ = self.gru(self.embedding(tokens), begin[None].contiguous())
        logits: Tensor = self.out(self.norm(states + self.look(states, regions, mask)))
        return logits

    def nll(
        self,
        tokens: Int[Tensor, "b t"],
        token_mask: Bool[Tensor, "b t"],
        regions: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
    ) -> Float[Tensor, " b"]:
        """Return how badly each text is foretold: the mean over its words of -log p, in nats; 0 for an empty text."""
        logits = self(tokens[:, :-1], regions, mask)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        real = token_mask[:, 1:]
        each = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(real.shape)
        return (each * real).sum(1) / real.sum(1).clamp(min=1)
