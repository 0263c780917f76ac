"""Heads: from a tower's width to the width that a system compares in."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.errors import UserError, unknown
from diptych.nn.linear import Linear
from diptych.nn.transformer import activation_named

KINDS = ("linear", "mlp", "none")


class Head(nn.Module):
    """A linear map, a small MLP, or nothing.

    Args:
        dim: width of what comes in.
        out: width of what goes out.
        kind: "linear" (one map without bias, as in CLIP), "mlp" (LayerNorm, linear, activation, dropout, linear) or
            "none" (rows stay as they are; `out` is `dim`).
        hidden: width inside the MLP; `out` when None.
        activation: "gelu", "quick_gelu" or "relu", inside the MLP.
        dropout: chance in [0, 1), before each linear map but the first of the MLP.
        residual: whether the MLP adds to a linear map of its input rather than standing alone.

    Raises:
        UserError: for another kind, or for "none" between two widths.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        kind: str = "linear",
        hidden: int | None = None,
        activation: str = "gelu",
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("head", kind, KINDS)
        if kind == "none" and dim != out:
            raise UserError(f"head none changes nothing, so it cannot bring {dim} features to {out}: give out={dim}")
        width = out if hidden is None else hidden
        self.straight = Linear(dim, out, bias=False) if kind == "linear" or (kind == "mlp" and residual) else None
        self.norm = nn.LayerNorm(dim) if kind == "mlp" else None
        self.up = Linear(dim, width) if kind == "mlp" else None
        self.down = Linear(width, out) if kind == "mlp" else None
        self.activation = activation_named(activation)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.straight, self.up, self.down):
            if linear is not None:
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        for biased in (self.up, self.down):
            if biased is not None:
                nn.init.zeros_(biased.bias)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:
        """Map each row."""
        if self.norm is None or self.up is None or self.down is None:
            return x if self.straight is None else self.straight(self.dropout(x))
        y: Tensor = self.down(self.dropout(self.activation(self.up(self.norm(x)))))
        return y if self.straight is None else y + self.straight(x)
