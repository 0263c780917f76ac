"""The sigmoid loss across two modalities (SigLIP): every pair of the batch is a yes or a no of its own.

No normaliser joins the pairs, so loss and gradient are made in one pass over the tiles of the similarities, 6 n^2 d
multiplications in all, in memory linear in the batch. Pairs of equal `group` are all positives.

Reference: Zhai et al. 2023, arXiv 2303.15343. It passes texts around the processes in chunks; here they are gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.errors import unknown
from diptych.core.runtime import gather, rank
from diptych.nn.linear import quick_products
from diptych.objectives.tiles import TILE, Tiles

PRECISIONS = ("fp32", "bf16")
# Below this, log(1 + e^x) is computed as it stands in float32: e^x stays far from its end.
PLAIN = 80.0


def sigmoid(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    *,
    group: Int[Tensor, " b"] | None = None,
    tiles: str = "fp32",
) -> Float[Tensor, ""]:
    """Ask of every picture and every text of all processes whether they belong together.

    Args:
        image: one vector a row, usually of unit length.
        text: the other side; row i belongs to row i of `image`.
        scale: what similarities are multiplied with; > 0, SigLIP starts at 10.
        bias: what is added to them; SigLIP starts at -10, as most pairs are negative.
        group: rows that share a number are positives of each other; None: only row i is.
        tiles: "fp32", or "bf16": similarities multiplied in bfloat16, everything else in float32.

    Returns:
        The sum over all pairs of -log sigmoid(+-logit), divided by the rows b of the batch, in nats; b ln 2 when scale
        and bias are 0.

    Raises:
        UserError: for unknown tiles.
    """
    if tiles not in PRECISIONS:
        raise unknown("tiles", tiles, PRECISIONS)
    image, text = (side.to(torch.promote_types(side.dtype, torch.float32)) for side in (image, text))
    all_text, groups = gather(text), None if group is None else gather(group)
    here = slice(rank() * len(image), (rank() + 1) * len(image))
    same = here.start if groups is None else (groups[here], groups)
    bias = torch.as_tensor(bias, dtype=image.dtype, device=image.device)
    with torch.autocast(image.device.type, enabled=False):
        total: Tensor = _apply(image * scale, all_text, bias, same, tiles == "bf16")
    return total / len(image)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _apply(*arguments: Any) -> Any:
    return _Sigmoid.apply(*arguments)  # type: ignore[no-untyped-call]


class _Sigmoid(torch.autograd.Function):
    """The sum over all pairs; its gradients are made on the way and wait for the backward pass."""

    @staticmethod
    @quick_products()
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        bias: Tensor,
        same: int | tuple[Tensor, Tensor],
        half: bool,  # noqa: FBT001
    ) -> Tensor:
        tiles = Tiles(rows, columns, half=half, tile=TILE)
        bound = float(rows.norm(dim=1).max() * columns.norm(dim=1).max() + bias.abs())
        sums = rows.new_zeros(2)
        pulls = _pulls(tiles, bias, same, sums, plain=bound <= PLAIN)
        if any(ctx.needs_input_grad):
            d_rows, d_columns = tiles.gradients(pulls)
            ctx.save_for_backward(d_rows, d_columns, sums[1])
        else:
            for _ in pulls:
                pass
        return sums[0].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(grads[0] * saved for saved in ctx.saved_tensors), None, None)


def _pulls(
    tiles: Tiles, bias: Tensor, same: int | tuple[Tensor, Tensor], sums: Tensor, *, plain: bool
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the gradient of each tile of logits, adding up the loss and the gradient of the bias in `sums`."""
    for i, j, logits in tiles:
        logits.add_(bias)
        _turn(logits, same, i, j)
        pull = torch.sigmoid(logits, out=tiles.second(i, j))
        _turn(pull, same, i, j)
        sums[1] += pull.sum()
        if plain:
            sums[0] += logits.exp_().log1p_().sum()
        else:
            sums[0] += logits.clamp(min=0).sum() + logits.abs_().neg_().exp_().log1p_().sum()
        yield i, j, pull


def _turn(tile: Tensor, same: int | tuple[Tensor, Tensor], i: slice, j: slice) -> None:
    """Change the sign of the positives in a tile: for row i column i + k, or where two numbers are equal."""
    if isinstance(same, int):
        further = i.start + same - j.start
        if -tile.shape[0] < further < tile.shape[1]:
            tile.diagonal(further).neg_()
    else:
        tile.mul_(1 - 2 * (same[0][i, None] == same[1][j]).to(tile.dtype))
