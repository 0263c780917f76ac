"""The contrastive loss across two modalities (InfoNCE): exact, for any batch, in memory linear in the batch.

The matrix of similarities is never whole (see `tiles`), and one matrix serves both directions, on many processes too:
each compares its own pictures with everybody's texts, and the sums of the columns are joined. Several positives per row
cost nothing, because the mean logit over positives is one product with the mean of their vectors; with `group` = class
labels this is UniCL, with hashed captions Florence's loss, with `smoothing` ALIGN's.

Reference: van den Oord et al. 2018, arXiv 1807.03748 (InfoNCE); Radford et al. 2021, arXiv 2103.00020 (symmetric, with
a learned scale); Khosla et al. 2020, arXiv 2004.11362 and Yang et al. 2022, arXiv 2204.03610 (several positives; UniCL
adds the two directions, here they are averaged); Yuan et al. 2021, arXiv 2111.11432 (Florence); Jia et al. 2021, arXiv
2102.05918 (ALIGN); Yeh et al. 2021, arXiv 2110.06848 (positive left out of the denominator).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.errors import UserError, unknown
from diptych.core.runtime import gather, rank
from diptych.objectives.across import log_add_exp
from diptych.objectives.tiles import log_sum_exp

NORMALISATIONS = ("both", "joint")
TILES = ("fp32", "bf16")
# Logits of positives within this many nats of each other lose no term that float32 could tell (e^-47 of its sum).
SPREAD = 40.0


def contrastive(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    *,
    group: Int[Tensor, " b"] | None = None,
    smoothing: float = 0.0,
    normalisation: str = "both",
    exclude_positive: bool = False,
    tiles: str = "fp32",
) -> Float[Tensor, ""]:
    """Compare row i of one side with every row of the other, both ways; rows of every process count.

    Args:
        image: one vector a row, usually of unit length.
        text: the other side; row i belongs to row i of `image`.
        scale: what similarities are multiplied with, the inverse temperature; > 0.
        group: rows that share a number are positives of each other (captions of one picture); None: only row i is.
        smoothing: share of the target spread evenly over all rows, in [0, 1).
        normalisation: "both" averages a softmax over each row and one over each column; "joint" is one softmax over
            all pairs of the batch, as some descriptions have it.
        exclude_positive: whether positives are left out of the denominator (decoupled contrastive loss); then the loss
            is no log-probability and has no lower bound.
        tiles: "fp32", or "bf16": similarities multiplied in bfloat16, everything else in float32.

    Returns:
        The mean of both directions in nats; ln b when all similarities are equal (2 ln b when joint).

    Raises:
        UserError: for an unknown name, a smoothing out of range, or no negative left when positives are excluded.
    """
    if normalisation not in NORMALISATIONS:
        raise unknown("normalisation", normalisation, NORMALISATIONS)
    if tiles not in TILES:
        raise unknown("tiles", tiles, TILES)
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing is {smoothing}, allowed are numbers from 0 to below 1; ALIGN uses 0.1")
    image, text = (side.to(torch.promote_types(side.dtype, torch.float32)) for side in (image, text))
    all_text, groups = gather(text), None if group is None else gather(group)
    if exclude_positive:
        _check_negatives(groups, rows=len(all_text))
    here = _here(len(image))
    scaled = image * scale
    own, positive = _positive(scaled, image, text, all_text, scale, groups=groups, smoothing=smoothing)
    alone = groups is None and not exclude_positive
    by_row, by_column = log_sum_exp(
        scaled,
        all_text,
        apart=_apart(here, groups=groups) if alone or exclude_positive else None,
        half=tiles == "bf16",
        near=None if exclude_positive else _near(own),
    )
    # A single positive is kept out of the sums and joined here: a loss near zero keeps all its digits that way.
    above = F.softplus(by_row - own, threshold=40) if alone else by_row - own
    rest = 0.0 if own is positive else (own - positive).mean()
    if normalisation == "joint":
        return log_add_exp((own + above).logsumexp(0, keepdim=True))[0] - own.mean() + rest
    by_column = log_add_exp(by_column)[here]
    beside = F.softplus(by_column - own, threshold=40) if alone else by_column - own
    return (above + beside).mean() / 2 + rest


def _here(rows: int) -> slice:
    """Return where this process's rows stand among everybody's."""
    return slice(rank() * rows, (rank() + 1) * rows)


def _positive(
    scaled: Float[Tensor, "b d"],
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    all_text: Float[Tensor, "n d"],
    scale: Float[Tensor, ""] | float,
    *,
    groups: Int[Tensor, " n"] | None,
    smoothing: float,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return for each local row the logit that its sums are compared with, and its mean logit over all targets.

    The mean is over both directions. The two are one, but with a single positive the first leaves smoothing out.
    """
    diagonal = (scaled * text).sum(1)
    if groups is None and smoothing == 0:
        return diagonal, diagonal
    # Only here are everybody's images fetched: without groups or smoothing their gradient stays at home.
    here = _here(len(image))
    to_text = (scaled * _targets(all_text, groups, here=here, smoothing=smoothing)).sum(1)
    to_image = (text * _targets(gather(image), groups, here=here, smoothing=smoothing)).sum(1) * scale
    positive = (to_text + to_image) / 2
    return (diagonal if groups is None else positive), positive


def _targets(
    vectors: Float[Tensor, "n d"], groups: Int[Tensor, " n"] | None, *, here: slice, smoothing: float
) -> Float[Tensor, "b d"]:
    """Return for each local row the mean vector of its positives, mixed with the mean of all by the smoothing."""
    if groups is None:
        mean = vectors[here]
    else:
        names, member = torch.unique(groups, return_inverse=True)
        total = vectors.new_zeros(len(names), vectors.shape[1]).index_add(0, member, vectors)
        count = torch.bincount(member, minlength=len(names)).to(vectors.dtype)
        mean = (total / count[:, None])[member[here]]
    return mean if smoothing == 0 else (1 - smoothing) * mean + smoothing * vectors.mean(0)


def _near(own: Float[Tensor, " b"]) -> Float[Tensor, " b"] | None:
    """Return the logits of the positives to work around, or None when they are too far apart for that."""
    everybody = gather(own.detach())
    return own if float(everybody.max() - everybody.min()) < SPREAD else None


def _apart(here: slice, *, groups: Int[Tensor, " n"] | None) -> int | tuple[Tensor, Tensor]:
    """Say which columns of a row are its positives: the one that lies so much further on, or those of equal numbers."""
    return here.start if groups is None else (groups[here], groups)


def _check_negatives(groups: Int[Tensor, " n"] | None, *, rows: int) -> None:
    if rows < 2 or (groups is not None and bool((groups == groups[0]).all())):
        raise UserError(
            f"exclude_positive needs a negative, but all rows of this batch ({rows}) are positives of each other: "
            "give larger batches or leave it off"
        )
