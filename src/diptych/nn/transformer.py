"""Pre-norm transformer blocks and their stack."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.errors import unknown
from diptych.nn.attention import Attention
from diptych.nn.dropout import Dropout
from diptych.nn.linear import Linear


def quick_gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Approximate GELU by x * sigmoid(1.702 x), as OpenAI's CLIP weights expect."""
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": quick_gelu, "relu": F.relu}


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation by its name: "gelu", "quick_gelu" or "relu".

    Raises:
        UserError: for another name.
    """
    if name not in _ACTIVATIONS:
        raise unknown("activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]


class MLP(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, dim: int, hidden: int, *, activation: str = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.activation = activation_named(activation)
        self.up = Linear(dim, hidden)
        self.down = Linear(hidden, dim)
        self.dropout = Dropout(dropout)
        self.reset(out_scale=1.0)

    def reset(self, *, out_scale: float) -> None:
        """Draw the weights as CLIP does: std (2d)^-1/2 on the way up, d^-1/2 times `out_scale` down; zero biases."""
        dim = self.up.in_features
        nn.init.normal_(self.up.weight, std=(2 * dim) ** -0.5)
        nn.init.normal_(self.down.weight, std=out_scale * dim**-0.5)
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Transform each token by itself."""
        y: Tensor = self.down(self.dropout(self.activation(self.up(x))))
        return y


class Block(nn.Module):
    """Attention, then an MLP, each after a LayerNorm and added to what came in.

    Args:
        dim: width of a token.
        heads: attention heads.
        hidden: width inside the MLP; 4 * dim when None.
        activation: "gelu", "quick_gelu" or "relu".
        dropout: chance in [0, 1), for attention weights and what each half adds.
        causal: whether token i sees only tokens 0 to i.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        hidden: int | None = None,
        activation: str = "gelu",
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal=causal, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim if hidden is None else hidden, activation=activation, dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Transform the tokens; `mask` says which of them are real."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


class Transformer(nn.Module):
    """A stack of blocks, without a norm at its end; arguments as for `Block`.

    What each block adds is drawn smaller by (2 * layers)^-1/2, so that the sum keeps its size (as in CLIP and GPT-2).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        *,
        hidden: int | None = None,
        activation: str = "gelu",
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        blocks = [
            Block(dim, heads, hidden=hidden, activation=activation, dropout=dropout, causal=causal)
            for _ in range(layers)
        ]
        for block in blocks:
            block.attention.reset(out_scale=(2 * layers) ** -0.5)
            block.mlp.reset(out_scale=(2 * layers) ** -0.5)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Transform the tokens; `mask` says which of them are real."""
        for block in self.blocks:
            x = block(x, mask)
        return x
