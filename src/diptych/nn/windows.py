"""Attention inside the windows of a grid: cutting, shifting and padding, learned relative positions, and its block."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.attention import Watch
from diptych.nn.linear import Linear
from diptych.nn.transformer import MLP


def cut_windows(grid: Shaped[Tensor, "b h w *d"], window: int) -> Shaped[Tensor, "b n t *d"]:
    """Cut a grid into square windows, row by row; the tokens of a window stand row by row too.

    Args:
        grid: whose sides are multiples of the window.
        window: side of a window, in cells.
    """
    batch, height, width, *rest = grid.shape
    parts = grid.reshape(batch, height // window, window, width // window, window, *rest)
    return parts.transpose(2, 3).reshape(batch, -1, window * window, *rest)


def join_windows(windows: Shaped[Tensor, "b n t d"], *, height: int, width: int) -> Shaped[Tensor, "b h w d"]:
    """Join windows to a grid again, the inverse of `cut_windows`."""
    batch, _, tokens, dim = windows.shape
    window = round(tokens**0.5)
    parts = windows.reshape(batch, height // window, width // window, window, window, dim)
    return parts.transpose(2, 3).reshape(batch, height, width, dim)


def may_meet(side: int, window: int, shift: int) -> Bool[Tensor, "n t t"] | None:
    """Say which tokens of each window may look at each other when a square grid was padded and then rolled back.

    A window at the rim holds cells from opposite sides of the picture, and padding: only cells that were neighbours
    before the roll meet, and padding meets padding alone, so that no token is without any other.

    Args:
        side: cells of a side, without padding.
        window: side of a window.
        shift: cells by which the grid was rolled up and to the left.

    Returns:
        None when every token of a window may look at every other.
    """
    padded = -(-side // window) * window
    if shift == 0 and padded == side:
        return None
    place = (torch.arange(padded) + shift) % padded  # where a cell stood before the roll
    part = torch.where(place >= side, 2, (torch.arange(padded) >= padded - shift).long())
    both = 3 * part[:, None] + part[None, :]
    both = both.masked_fill((part[:, None] == 2) | (part[None, :] == 2), 8)
    regions = cut_windows(both[None], window)[0]
    return regions[:, :, None] == regions[:, None, :]


def relative_index(tokens: int, window: int) -> Int[Tensor, "t2 t2"]:
    """Number the steps from each token of a window to each other one in a table of (2 * window - 1)^2 steps.

    Args:
        tokens: side of the window that is looked at, at most `window`.
        window: side of the window that the table is for.
    """
    place = torch.arange(tokens)
    row, column = (part.flatten() for part in torch.meshgrid(place, place, indexing="ij"))
    rows, columns = (part[:, None] - part[None, :] + window - 1 for part in (row, column))
    return rows * (2 * window - 1) + columns


class WindowAttention(nn.Module):
    """Attention among the cells of each window of a square grid, with a learned bias for each relative position.

    Where the grid is not larger than a window, it is one window, without shift: full attention.

    Args:
        dim: width of a cell.
        heads: parts that the width is split into.
        side: cells of a side of the grid.
        window: side of a window; grids of other sizes are padded to a multiple, and padding is not seen.
        shift: whether the windows lie half a window further down and to the right.
        dropout: chance in [0, 1) that an attention weight is dropped in training.

    Attributes:
        watch: who gets to see the weights, (b, n, h, t, t), without dropout; nobody but for an explanation.

    Raises:
        UserError: when the heads do not divide the width.

    Reference:
        Liu et al. 2021, arXiv 2103.14030 (Swin). Their padding is seen as cells of zeros; here it is not seen.
    """

    index: Tensor
    seen: Tensor | None
    watch: Watch | None = None

    def __init__(
        self, dim: int, heads: int, *, side: int, window: int, shift: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if dim % heads != 0:
            raise UserError(f"the width must be a multiple of the heads, got dim={dim} and heads={heads}")
        self.heads, self.side, self.dropout = heads, side, dropout
        self.window = min(window, side)
        self.shift = self.window // 2 if shift and side > window else 0
        self.padding = -side % self.window
        self.query, self.key, self.value, self.out = (Linear(dim, dim) for _ in range(4))
        self.bias_table = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        self.register_buffer("index", relative_index(self.window, window), persistent=False)
        self.register_buffer("seen", may_meet(side, self.window, self.shift), persistent=False)
        self.reset(out_scale=1.0)

    def reset(self, *, out_scale: float) -> None:
        """Draw the weights as CLIP does: std d^-1/2, that of the way out times `out_scale`; biases are zero."""
        for linear, scale in ((self.query, 1.0), (self.key, 1.0), (self.value, 1.0), (self.out, out_scale)):
            nn.init.normal_(linear.weight, std=scale * self.out.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        """Let each cell look at the cells of its window."""
        side = self.side + self.padding
        x = nn.functional.pad(x, (0, 0, 0, self.padding, 0, self.padding))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        y = join_windows(self.attend(cut_windows(x, self.window)), height=side, width=side)
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        return y[:, : self.side, : self.side]

    def attend(self, windows: Float[Tensor, "b n t d"]) -> Float[Tensor, "b n t d"]:
        """Mix the cells of each window."""
        query, key, value = (
            linear(windows).unflatten(-1, (self.heads, -1)).transpose(2, 3)  # b n h t e
            for linear in (self.query, self.key, self.value)
        )
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        logits = logits + self.bias_table[self.index].movedim(-1, 0)
        if self.seen is not None:
            logits = logits.masked_fill(~self.seen[:, None], torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1)
        if self.watch is not None:
            weights = self.watch(weights)
        weights = nn.functional.dropout(weights, self.dropout, self.training)
        out: Tensor = self.out((weights.to(value.dtype) @ value).transpose(2, 3).flatten(3))
        return out


class WindowBlock(nn.Module):
    """Attention inside windows, then an MLP, each after a LayerNorm and added to what came in.

    Args:
        attention: among the cells.
        merge: what is done to the grid first; nothing when None.
        activation: "gelu", "quick_gelu" or "relu".
        dropout: chance in [0, 1), for what each half adds.
    """

    def __init__(
        self,
        attention: WindowAttention,
        *,
        merge: nn.Module | None = None,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dim = attention.out.in_features
        self.merge = nn.Identity() if merge is None else merge
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim, activation=activation, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def reset(self, *, out_scale: float) -> None:
        """Draw the weights anew, what each half adds `out_scale` times as large."""
        self.attention.reset(out_scale=out_scale)
        self.mlp.reset(out_scale=out_scale)

    def forward(self, x: Float[Tensor, "b i j c"]) -> Float[Tensor, "b h w d"]:
        """Transform a grid."""
        x = self.merge(x)
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y
