"""A block that looks at its own tokens, then at those of a context: of a decoder, or of one modality at another."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.nn.attention import Attention
from diptych.nn.pool import masked_mean
from diptych.nn.transformer import MLP


class CrossBlock(nn.Module):
    """Self-attention, attention to a context and an MLP, each after a LayerNorm and added to what came in.

    Args:
        dim: width of a token.
        heads: attention heads.
        context: width of the context's tokens.
        hidden: width inside the MLP; 4 * dim when None.
        activation: "gelu", "quick_gelu" or "relu".
        dropout: chance in [0, 1), for attention weights and what each part adds.
        causal: whether token i sees only tokens 0 to i of its own; of the context it sees all.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        context: int,
        hidden: int | None = None,
        activation: str = "gelu",
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal=causal, dropout=dropout)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross = Attention(dim, heads, context=context, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim if hidden is None else hidden, activation=activation, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        context: Float[Tensor, "i n c"],
        mask: Bool[Tensor, "b t"] | None = None,
        context_mask: Bool[Tensor, "b n"] | None = None,
        owner: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Transform the tokens.

        Args:
            x: the tokens.
            context: what they look at.
            mask: which tokens are real.
            context_mask: which of what each row looks at is real.
            owner: whose context each row looks at, where rows share them.
        """
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask))
        x = x + self.dropout(self.cross(self.cross_norm(x), context, context_mask, owner))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


class CrossReader(nn.Module):
    """Words that look at each other and at the cells of a picture, block by block, and are pooled at the end.

    Args:
        dim: width of both.
        heads: attention heads.
        layers: blocks.
        hidden: width inside the MLPs.
        dropout: chance in [0, 1).

    What each part adds is drawn smaller by (3 * layers)^-1/2, so that words stay themselves at first.

    Reference:
        Li et al. 2021, ALBEF, arXiv 2107.07651 (the multimodal encoder). Words are pooled by their mean, for there may
        be no class token among them.
    """

    def __init__(self, dim: int, heads: int, layers: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = [CrossBlock(dim, heads, context=dim, hidden=hidden, dropout=dropout) for _ in range(layers)]
        for block in blocks:
            for part in (block.attention, block.cross, block.mlp):
                part.reset(out_scale=(3 * layers) ** -0.5)
        self.blocks = nn.ModuleList(blocks)
        self.cell_norm, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self,
        words: Float[Tensor, "b t d"],
        real: Bool[Tensor, "b t"],
        cells: Float[Tensor, "i n d"],
        mask: Bool[Tensor, "b n"],
        picture: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """Return one vector of both for each question.

        Args:
            words: of the questions.
            real: which of them are no padding.
            cells: of each picture, once.
            mask: which cells each question may see.
            picture: whose each question is; in order when None.
        """
        cells = self.cell_norm(cells)
        for block in self.blocks:
            words = block(words, cells, real, mask, picture)
        return masked_mean(self.norm(words), real)
