"""The pair loss: right pairs are pulled to distance 0, wrong ones pushed until they are a margin apart.

Reference: Hadsell et al. 2006, CVPR (dimensionality reduction by learning an invariant mapping). They halve both
terms and are given pairs; here every picture of the batch makes a pair with every text. See `triplet.pair_distance` for
pairs that are given.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.runtime import gather, rank


def all_pairs(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    *,
    margin: float = 1.0,
    group: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Compare every picture with every text; rows of every process count.

    Args:
        image: one vector a row.
        text: the other side; row i belongs to row i of `image`.
        margin: the Euclidean distance beyond which wrong pairs rest; > 0. Between unit vectors none is above 2.
        group: rows that share a number are right pairs too; None: only row i is.

    Returns:
        The sum of d^2 over right pairs and of max(0, margin - d)^2 over wrong ones, divided by the rows.

    Raises:
        UserError: for a margin that is not positive.
    """
    if not margin > 0:
        raise UserError(f"margin is {margin}, allowed are positive numbers; 1 is usual for unit vectors")
    others = gather(text)
    names = torch.arange(len(others), device=image.device) if group is None else gather(group)
    start = rank() * len(image)
    same = names[start : start + len(image), None] == names
    square = (image.square().sum(1)[:, None] + others.square().sum(1) - 2 * image @ others.T).clamp(min=0)
    # The root has no gradient at 0: wrong partners nearer than 1e-6 stand still there.
    distance = square.clamp(min=1e-12).sqrt()
    return torch.where(same, square, (margin - distance).clamp(min=0).square()).sum() / len(image)
