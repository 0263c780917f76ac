"""The contrastive loss across two modalities (InfoNCE): exact, for any batch, in memory linear in the batch.

The matrix of similarities is never whole: it is made tile by tile, once for the log-sum-exp of its rows and columns and
once more in the backward pass, 8 m n d multiplications in all. Several positives per row cost nothing, because the mean
logit over positives is one product with the mean of their vectors.

Reference: van den Oord et al. 2018, arXiv 1807.03748 (InfoNCE); Radford et al. 2021, arXiv 2103.00020 (symmetric, with
a learned scale); Khosla et al. 2020, arXiv 2004.11362 and Yang et al. 2022, arXiv 2204.03610 (several positives).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.runtime import gather, rank

TILE = 1024
# exp(S - shift) stays finite in float32 for sums of up to e^18 terms, and keeps 157 nats below the largest logit.
HEADROOM = 70.0


def contrastive(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    *,
    group: Int[Tensor, " b"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Compare row i of one side with every row of the other, both ways; rows of every process count.

    Args:
        image: one vector a row, usually of unit length.
        text: the other side; row i belongs to row i of `image`.
        scale: what similarities are multiplied with, the inverse temperature; > 0.
        group: rows that share a number are positives of each other (captions of one picture); None: only row i is.
        smoothing: share of the target spread evenly over all rows, in [0, 1).

    Returns:
        The mean of both directions in nats; ln b when all similarities are equal.
    """
    all_image, all_text = gather(image), gather(text)
    groups = None if group is None else gather(group)
    if all_image is image:
        to_text, to_image = log_sum_exp(image * scale, text)
    else:
        to_text, _ = log_sum_exp(image * scale, all_text, both=False)
        to_image, _ = log_sum_exp(text * scale, all_image, both=False)
    for_image = _targets(all_text, groups, rows=len(image), smoothing=smoothing)
    for_text = _targets(all_image, groups, rows=len(text), smoothing=smoothing)
    positive = ((image * for_image).sum(1) + (text * for_text).sum(1)) * scale
    return (to_text + to_image - positive).mean() / 2


def _targets(
    vectors: Float[Tensor, "n d"], group: Int[Tensor, " n"] | None, *, rows: int, smoothing: float
) -> Float[Tensor, "b d"]:
    """Return for each local row the mean vector of its positives, mixed with the mean of all by the smoothing."""
    here = slice(rank() * rows, (rank() + 1) * rows)
    if group is None:
        mean = vectors[here]
    else:
        names, member = torch.unique(group, return_inverse=True)
        total = vectors.new_zeros(len(names), vectors.shape[1]).index_add(0, member, vectors)
        count = torch.bincount(member, minlength=len(names)).to(vectors.dtype)
        mean = (total / count[:, None])[member[here]]
    return mean if smoothing == 0 else (1 - smoothing) * mean + smoothing * vectors.mean(0)


def log_sum_exp(
    rows: Float[Tensor, "m d"], columns: Float[Tensor, "n d"], *, both: bool = True, tile: int = TILE
) -> tuple[Float[Tensor, " m"], Float[Tensor, " n"]]:
    """Return log sum exp of `rows @ columns.T` along its rows and along its columns, without ever holding it whole.

    Args:
        rows: vectors of any length; half precision is raised to float32.
        columns: the other side.
        both: False leaves the columns' sums out (zeros are returned) and saves their time.
        tile: side of the square pieces that are worked on at a time.
    """
    kind = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        sums: tuple[Tensor, Tensor] = _LogSumExp.apply(  # type: ignore[no-untyped-call]
            rows.to(kind), columns.to(kind), both, tile
        )
    return sums


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, both: bool, tile: int) -> tuple[Tensor, Tensor]:  # noqa: FBT001
        shift = float(rows.norm(dim=1).max() * columns.norm(dim=1).max()) - HEADROOM
        found = _sums_shifted(rows, columns, both=both, tile=tile, shift=shift)
        ctx.shift = shift
        if found is None:
            ctx.shift, found = None, _sums_running(rows, columns, both=both, tile=tile)
        ctx.both, ctx.tile = both, tile
        ctx.save_for_backward(rows, columns, *found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, columns, by_row, by_column = ctx.saved_tensors
        to_row, to_column = grads
        d_rows, d_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        if ctx.shift is not None:
            u, v = to_row * (ctx.shift - by_row).exp(), to_column * (ctx.shift - by_column).exp()
        for i, j, logits in _tiles(rows, columns, tile=ctx.tile, shift=ctx.shift):
            if ctx.shift is not None:
                logits.exp_().mul_(u[i, None] + v[j] if ctx.both else u[i, None])
            else:
                pull = (logits - by_row[i, None]).exp_().mul_(to_row[i, None])
                if ctx.both:
                    pull += (logits - by_column[j]).exp_().mul_(to_column[j])
                logits = pull
            d_rows[i].addmm_(logits, columns[j])
            d_columns[j].addmm_(logits.T, rows[i])
        return d_rows, d_columns, None, None


def _tiles(rows: Tensor, columns: Tensor, *, tile: int, shift: float | None) -> Any:
    """Yield (row slice, column slice, logits - shift), the logits in one buffer that every tile overwrites."""
    less = rows.new_tensor(-shift if shift is not None else 0.0)
    buffer = rows.new_empty(min(tile, len(rows)) * min(tile, len(columns)))
    for start in range(0, len(rows), tile):
        i = slice(start, min(start + tile, len(rows)))
        for begin in range(0, len(columns), tile):
            j = slice(begin, min(begin + tile, len(columns)))
            height, width = i.stop - i.start, j.stop - j.start
            out = buffer[: height * width].view(height, width)
            yield i, j, torch.addmm(less, rows[i], columns[j].T, out=out)


def _sums_shifted(
    rows: Tensor, columns: Tensor, *, both: bool, tile: int, shift: float
) -> tuple[Tensor, Tensor] | None:
    """Sum with one exponential for both directions; None when that leaves the range of the numbers."""
    if not math.isfinite(shift):
        return None
    by_row, by_column = rows.new_zeros(len(rows)), columns.new_zeros(len(columns))
    for i, j, logits in _tiles(rows, columns, tile=tile, shift=shift):
        logits.exp_()
        by_row[i] += logits.sum(1)
        if both:
            by_column[j] += logits.sum(0)
    smallest = torch.minimum(by_row.min(), by_column.min()) if both else by_row.min()
    if not float(smallest) > 1e3 * torch.finfo(rows.dtype).tiny:
        return None
    return by_row.log_().add_(shift), by_column.log_().add_(shift) if both else by_column


def _sums_running(rows: Tensor, columns: Tensor, *, both: bool, tile: int) -> tuple[Tensor, Tensor]:
    """Sum with a running log-sum-exp a row and a column, right for logits of any size."""
    by_row = rows.new_full((len(rows),), -math.inf)
    by_column = columns.new_full((len(columns),), -math.inf)
    for i, j, logits in _tiles(rows, columns, tile=tile, shift=None):
        by_row[i] = torch.logaddexp(by_row[i], logits.logsumexp(1))
        if both:
            by_column[j] = torch.logaddexp(by_column[j], logits.logsumexp(0))
    return by_row, by_column if both else by_column.zero_()
