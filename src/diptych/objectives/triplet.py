"""Hinge losses across two modalities: every wrong partner, or only the hardest, must stay a margin behind.

Reference: Kiros et al. 2014, arXiv 1411.2539 (sum of hinges); Faghri et al. 2017, arXiv 1707.05612 (VSE++: only the
hardest negative, which needs a start with the sum, here the `hardest` mix); Hadsell et al. 2006 (pairs). The released
VSE++ sums over the batch, so that the best learning rate depends on its size; here `mean=True` divides by it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diptych.core.errors import UserError, unknown
from diptych.core.runtime import gather, rank

SIMILARITIES = ("dot", "euclidean")


def triplet(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    *,
    margin: float = 0.2,
    hardest: float = 0.0,
    group: Int[Tensor, " b"] | None = None,
    similarity: str = "dot",
    mean: bool = True,
) -> Float[Tensor, ""]:
    """Push every wrong partner of a row a margin below its right one, both ways; rows of every process count.

    Args:
        image: one vector a row, usually of unit length.
        text: the other side; row i belongs to row i of `image`.
        margin: by how much the right partner must win, in units of the similarity; > 0.
        hardest: share of the loss that looks only at the hardest wrong partner, in [0, 1]; raise it from 0 to 1 over
            the first epochs, since 1 from the start tends to collapse (the loss then rests at 2 margin a row).
        group: rows that share a number are never wrong partners of each other; None: only row i is right.
        similarity: "dot" (the cosine of unit vectors), or "euclidean", minus the distance.
        mean: whether to divide the sum by the rows of the batch.

    Returns:
        The loss in units of the similarity; 0 exactly when every margin is met.

    Raises:
        UserError: for an unknown similarity, a margin that is not positive, or a share outside [0, 1].
    """
    _check(margin=margin, hardest=hardest, similarity=similarity)
    all_image, all_text = gather(image), gather(text)
    start = rank() * len(image)
    here = slice(start, start + len(image))
    names = torch.arange(len(all_image), device=image.device) if group is None else gather(group)
    wrong = names[here, None] != names
    loss = image.new_zeros(())
    for side, other in ((image, all_text), (text, all_image)):
        scores = similarities(side, other, kind=similarity)
        loss = loss + _hinges(scores, scores.diagonal(start), wrong, margin=margin, hardest=hardest)
    # Each process gives its share of the whole: their mean is the whole loss.
    whole = len(all_image)
    return loss / len(image) if mean else loss * (whole / len(image))


def score_triplet(
    scores: Float[Tensor, "b n"],
    *,
    margin: float = 0.2,
    hardest: float = 0.0,
    group: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Do as `triplet` does with scores that are no products of vectors, but of a picture and a text together.

    Args:
        scores: this process's pictures with everybody's texts; text i of this process's own belongs to its picture i.
        margin: as in `triplet`, in units of the scores.
        hardest: as in `triplet`.
        group: as in `triplet`.

    Returns:
        The hinges of both directions, divided by the rows of all processes; the same on each of them.

    Raises:
        UserError: for a margin that is not positive or a share outside [0, 1].
    """
    _check(margin=margin, hardest=hardest, similarity=SIMILARITIES[0])
    whole = gather(scores)
    names = torch.arange(len(whole), device=whole.device) if group is None else gather(group)
    wrong = names[:, None] != names
    right = whole.diagonal()
    sides = (_hinges(side, right, wrong, margin=margin, hardest=hardest) for side in (whole, whole.T))
    return torch.stack(list(sides)).sum() / len(whole)


def similarities(
    rows: Float[Tensor, "m d"], columns: Float[Tensor, "n d"], *, kind: str = "dot"
) -> Float[Tensor, "m n"]:
    """Return the similarity of every row with every column: their dot product, or minus their distance."""
    if kind == "dot":
        return rows @ columns.T
    square = rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * rows @ columns.T
    # The root has no gradient at 0, where two vectors are equal: a distance below 1e-6 stands still there.
    return -square.clamp(min=1e-12).sqrt()


def pair_distance(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], same: Bool[Tensor, " b"], *, margin: float = 1.0
) -> Float[Tensor, ""]:
    """Pull pairs that belong together to distance 0, push the others to at least the margin (Hadsell et al. 2006).

    Args:
        image: one vector a row.
        text: the other side, compared row by row.
        same: which rows belong together.
        margin: the Euclidean distance beyond which wrong pairs rest; > 0.

    Returns:
        The mean of d^2 for right and of max(0, margin - d)^2 for wrong pairs.
    """
    square = (image - text).square().sum(1)
    distance = square.clamp(min=1e-12).sqrt()
    return torch.where(same, square, (margin - distance).clamp(min=0).square()).mean()


def _check(*, margin: float, hardest: float, similarity: str) -> None:
    if similarity not in SIMILARITIES:
        raise unknown("similarity", similarity, SIMILARITIES)
    if not margin > 0:
        raise UserError(f"margin is {margin}, allowed are positive numbers; 0.2 is usual for cosines")
    if not 0 <= hardest <= 1:
        raise UserError(f"hardest is {hardest}, allowed is a share from 0 (every negative) to 1 (the hardest alone)")


def _hinges(
    scores: Float[Tensor, "b n"],
    right: Float[Tensor, " b"],
    wrong: Bool[Tensor, "b n"],
    *,
    margin: float,
    hardest: float,
) -> Float[Tensor, ""]:
    hinges = (margin - right[:, None] + scores).clamp(min=0) * wrong
    loss = (1 - hardest) * hinges.sum() if hardest < 1 else scores.new_zeros(())
    return loss + hardest * hinges.amax(1).sum() if hardest > 0 else loss
