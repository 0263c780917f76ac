"""Cross-modal streams: the tokens of each modality look at the other's, layer by layer, and are pooled at the end."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.nn.attention import Attention
from diptych.nn.linear import Linear
from diptych.nn.pool import masked_mean
from diptych.nn.transformer import MLP


class CrossLayer(nn.Module):
    """Tokens look at a context, then pass through an MLP; each after a LayerNorm and added to what came in."""

    def __init__(self, dim: int, heads: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.cross_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross = Attention(dim, heads, dropout=dropout)
        self.mlp = MLP(dim, hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b t d"], context: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b t d"]:
        """Transform the tokens; the mask says which of the context's are real."""
        x = x + self.dropout(self.cross(self.cross_norm(x), context, mask))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


class CrossStreams(nn.Module):
    """Two streams, cells that look at words and words that look at cells, each at the other's first tokens.

    Args:
        dim: width of both.
        heads: attention heads.
        layers: of each stream.
        hidden: width inside the layers.
        out: width of the result.
        dropout: chance in [0, 1).

    Reference:
        Tsai et al. 2019, Multimodal Transformer, arXiv 1906.00295. Each stream is pooled by its mean rather than by a
        further transformer's last token: neither side is a sequence in time, and means can count.
    """

    def __init__(self, dim: int, heads: int, layers: int, *, hidden: int, out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.cells, self.words = (
            nn.ModuleList(CrossLayer(dim, heads, hidden=hidden, dropout=dropout) for _ in range(layers))
            for _ in range(2)
        )
        self.cell_norm, self.word_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.out = Linear(2 * dim, out)

    def forward(
        self,
        cells: Float[Tensor, "b n d"],
        cell_mask: Bool[Tensor, "b n"],
        words: Float[Tensor, "b t d"],
        word_mask: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b e"]:
        """Return one vector of both; a side without a real token counts as zero. Padding must be finite."""
        seen, read = self.cell_norm(cells), self.word_norm(words)
        for cell_layer, word_layer in zip(self.cells, self.words, strict=True):
            cells, words = cell_layer(cells, read, word_mask), word_layer(words, seen, cell_mask)
        pooled = torch.cat([masked_mean(cells, cell_mask), masked_mean(words, word_mask)], dim=1)
        fused: Tensor = self.out(pooled)
        return fused
