"""log sum exp of all products between two sets of vectors, along both sides, without ever holding the products.

They are made tile by tile in one buffer: once for the sums, once more in the backward pass, 8 m n d multiplications in
all and memory linear in m + n. A matrix small enough to be one tile is kept between the two, which saves 2 m n d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.nn.linear import quick_products

TILE = 1024
# Up to this many products are worked on as one tile and kept: 16 MiB in float32.
KEEP = 2048 * 2048
# exp(x - shift) stays finite in float32 for sums of up to e^18 terms, and keeps 157 nats below the largest product.
HEADROOM = 70.0
# bfloat16 tiles are wider than the vectors by this: three columns carry each row's shift, the rest keeps rows aligned.
EXTRA = 32

Apart: TypeAlias = int | tuple[Tensor, Tensor] | None


def log_sum_exp(
    rows: Float[Tensor, "m d"],
    columns: Float[Tensor, "n d"],
    *,
    apart: int | tuple[Int[Tensor, " m"], Int[Tensor, " n"]] | None = None,
    half: bool = False,
    near: Float[Tensor, " m"] | None = None,
    tile: int | None = None,
) -> tuple[Float[Tensor, " m"], Float[Tensor, " n"]]:
    """Return log sum exp of `rows @ columns.T` along its rows and along its columns; right for products of any size.

    Args:
        rows: vectors of any length; half precision is raised to float32.
        columns: the other side.
        apart: which products are left out: k for row i and column i + k; or a number for each row and for each column,
            where equal numbers are left out. The sum is -inf where none is left.
        half: whether to multiply in bfloat16; exponentials and sums stay in float32.
        near: something of the size of each row's largest product, within 40 nats over all rows: bfloat16 tiles are
            rounded finest around it, and sums that are too small beside it for float32 may be lost (-inf).
        tile: side of the square pieces that are worked on at a time; chosen by the size when None.
    """
    kind = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    rows, columns = rows.to(kind), columns.to(kind)
    near = None if near is None else near.detach().to(kind)
    if tile is None:
        tile = max(len(rows), len(columns)) if len(rows) * len(columns) <= KEEP else TILE
    with torch.autocast(rows.device.type, enabled=False):
        sums: tuple[Tensor, Tensor] = _apply(rows, columns, apart, near, half, tile)
    return sums


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _apply(*arguments: Any) -> Any:
    return _LogSumExp.apply(*arguments)  # type: ignore[no-untyped-call]


class Tiles:
    """The tiles of `rows @ columns.T - shift`, one after another, and the way back from their gradients.

    Args:
        rows: vectors, float32 or float64.
        columns: the other side.
        half: whether to multiply in bfloat16.
        tile: side of a tile.
        shift: what is taken from each row of products; nothing when None.
        apart: which products are left out (-inf), as `log_sum_exp` has it.
    """

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        *,
        half: bool,
        tile: int,
        shift: Tensor | None = None,
        apart: Apart = None,
    ) -> None:
        self.rows, self.columns, self.half, self.tile = rows, columns, half, tile
        self.shift, self.apart = shift, apart
        area = min(tile, len(rows)) * min(tile, len(columns))
        self.buffer, self.spare = rows.new_empty(area), rows.new_empty(0)
        if half:
            width = rows.shape[1]
            self.left = rows.new_zeros(len(rows), width + EXTRA, dtype=torch.bfloat16)
            self.right = rows.new_zeros(len(columns), width + EXTRA, dtype=torch.bfloat16)
            self.left[:, :width], self.right[:, :width] = rows, columns
            self.small = self.left.new_empty(area)
            if shift is not None:
                self.right[:, width : width + 3] = 1
                rest = -shift
                for column in range(width, width + 3):
                    self.left[:, column] = rest
                    rest = rest - self.left[:, column].to(rest.dtype)

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield (row slice, column slice, products), the products in one buffer that the next tile overwrites."""
        for start in range(0, len(self.rows), self.tile):
            i = slice(start, min(start + self.tile, len(self.rows)))
            for begin in range(0, len(self.columns), self.tile):
                j = slice(begin, min(begin + self.tile, len(self.columns)))
                out = self._shaped(self.buffer, i, j)
                if self.half:
                    small = self._shaped(self.small, i, j)
                    out.copy_(torch.mm(self.left[i], self.right[j].T, out=small))
                else:
                    torch.mm(self.rows[i], self.columns[j].T, out=out)
                    if self.shift is not None:
                        out.sub_(self.shift[i, None])
                self._leave_out(out, i, j)
                yield i, j, out

    def _leave_out(self, products: Tensor, i: slice, j: slice) -> None:
        if isinstance(self.apart, int):
            further = i.start + self.apart - j.start
            if -products.shape[0] < further < products.shape[1]:
                products.diagonal(further).fill_(-math.inf)
        elif self.apart is not None:
            products.masked_fill_(self.apart[0][i, None] == self.apart[1][j], -math.inf)

    def second(self, i: slice, j: slice) -> Tensor:
        """Return a second buffer of a tile's shape, for what is not kept either."""
        if len(self.spare) == 0:
            self.spare = torch.empty_like(self.buffer)
        return self._shaped(self.spare, i, j)

    @staticmethod
    def _shaped(buffer: Tensor, i: slice, j: slice) -> Tensor:
        height, width = i.stop - i.start, j.stop - j.start
        return buffer[: height * width].view(height, width)

    def gradients(self, pulls: Iterator[tuple[slice, slice, Tensor]]) -> tuple[Tensor, Tensor]:
        """Turn the gradients of every tile into those of rows and columns."""
        d_rows = torch.zeros_like(self.rows)
        if not self.half:
            d_columns = torch.zeros_like(self.columns)
            for i, j, pull in pulls:
                d_rows[i].addmm_(pull, self.columns[j])
                d_columns[j].addmm_(pull.T, self.rows[i])
            return d_rows, d_columns
        # The columns' gradient is made lying down: bfloat16 products are twice as fast when the tile is not transposed.
        width = self.rows.shape[1]
        lying = self.rows.new_zeros(width, len(self.columns))
        left, right = self.left[:, :width].T.contiguous(), self.right[:, :width]
        for i, j, pull in pulls:
            small = self._shaped(self.small, i, j).copy_(pull)
            d_rows[i] += small @ right[j]
            lying[:, j] += left[:, i] @ small
        return d_rows, lying.T


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    @quick_products()
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        apart: Apart,
        near: Tensor | None,
        half: bool,  # noqa: FBT001
        tile: int,
    ) -> tuple[Tensor, Tensor]:
        shift = _shift(rows, columns, near, half=half)
        tiles = Tiles(rows, columns, half=half, tile=tile, shift=shift, apart=apart)
        found = _sums_shifted(tiles, lossy=near is not None and shift is near)
        ctx.shifted, ctx.half, ctx.tile, ctx.apart = found is not None, half, tile, apart
        if found is None:
            shift = None
            found = _sums_running(Tiles(rows, columns, half=half, tile=tile, apart=apart))
        kept = tiles.buffer if ctx.shifted and tile >= max(len(rows), len(columns)) else None
        ctx.save_for_backward(rows, columns, shift, kept, *found)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    @quick_products()
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, shift, kept, *sums = ctx.saved_tensors
        tiles = Tiles(rows, columns, half=ctx.half, tile=ctx.tile, shift=shift, apart=ctx.apart)
        # Where a sum is empty nothing pulls: exp(x - inf) is 0, exp(x + inf) would not be.
        sums = [s.masked_fill(s == -math.inf, math.inf) for s in sums]
        pulls = _pulls_shifted(tiles, kept, sums, grads) if ctx.shifted else _pulls_running(tiles, sums, grads)
        return (*tiles.gradients(pulls), None, None, None, None)


def _shift(rows: Tensor, columns: Tensor, near: Tensor | None, *, half: bool) -> Tensor | None:
    """Choose what to take from each row so that exponentials stay in range; None for nothing."""
    bound = float(rows.norm(dim=1).max() * columns.norm(dim=1).max())
    if bound <= HEADROOM and not (half and near is not None):
        return None
    if near is not None or not math.isfinite(bound):
        return near
    return rows.new_full((len(rows),), bound - HEADROOM)


def _weights(tiles: Tiles) -> tuple[Tensor, Tensor]:
    """Return what to add back to the rows' sums, and each row's factor in the sums of columns, at most 1."""
    shift = tiles.rows.new_zeros(len(tiles.rows)) if tiles.shift is None else tiles.shift
    return shift, (shift - shift.max()).exp()


def _sums_shifted(tiles: Tiles, *, lossy: bool) -> tuple[Tensor, Tensor] | None:
    """Sum with one exponential for both directions; None when that leaves the range of the numbers."""
    shift, factor = _weights(tiles)
    by_row, by_column = tiles.rows.new_zeros(len(tiles.rows)), tiles.columns.new_zeros(len(tiles.columns))
    for i, j, products in tiles:
        terms = products.exp_()
        by_row[i] += terms.sum(1)
        by_column[j] += torch.mv(terms.T, factor[i])
    smallest = float(torch.minimum(by_row.min(), by_column.min()))
    largest = float(torch.maximum(by_row.max(), by_column.max()))
    enough = 0.0 if lossy else 1e3 * torch.finfo(by_row.dtype).tiny
    if not (smallest >= enough and largest < math.inf):
        return None
    return by_row.log_().add_(shift), by_column.log_().add_(shift.max())


def _pulls_shifted(
    tiles: Tiles,
    kept: Tensor | None,
    sums: list[Tensor],
    grads: tuple[Tensor, ...],
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the gradient of each tile of products from that of the sums."""
    shift, factor = _weights(tiles)
    u = grads[0] * (shift - sums[0]).exp()
    v = grads[1] * (shift.max() - sums[1]).exp()
    whole = slice(0, len(u)), slice(0, len(v))
    source = tiles if kept is None else [(*whole, kept.view(len(u), len(v)))]
    for i, j, products in source:
        terms = products if kept is not None else products.exp_()
        pull = tiles.second(i, j)
        if tiles.shift is None:
            torch.add(u[i, None], v[j], out=pull)
        else:
            torch.mul(factor[i, None], v[j], out=pull).add_(u[i, None])
        yield i, j, pull.mul_(terms)


def _sums_running(tiles: Tiles) -> tuple[Tensor, Tensor]:
    """Sum with a running log-sum-exp a row and a column, right for products of any size."""
    by_row = tiles.rows.new_full((len(tiles.rows),), -math.inf)
    by_column = tiles.columns.new_full((len(tiles.columns),), -math.inf)
    for i, j, products in tiles:
        by_row[i] = torch.logaddexp(by_row[i], products.logsumexp(1))
        by_column[j] = torch.logaddexp(by_column[j], products.logsumexp(0))
    return by_row, by_column


def _pulls_running(
    tiles: Tiles,
    sums: list[Tensor],
    grads: tuple[Tensor, ...],
) -> Iterator[tuple[slice, slice, Tensor]]:
    for i, j, products in tiles:
        pull = torch.sub(products, sums[0][i, None], out=tiles.second(i, j)).exp_().mul_(grads[0][i, None])
        yield i, j, pull.add_(products.sub_(sums[1][j]).exp_().mul_(grads[1][j]))
