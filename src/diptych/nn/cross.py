"""A block that looks at its own tokens, then at those of a context: of a decoder, or of one modality at another."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.nn.attention import Attention
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
        context: Float[Tensor, "b n c"],
        mask: Bool[Tensor, "b t"] | None = None,
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Transform the tokens; the masks say which of them, and which of the context's, are real."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask))
        x = x + self.dropout(self.cross(self.cross_norm(x), context, context_mask))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y
