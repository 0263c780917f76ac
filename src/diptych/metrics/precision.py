"""Mean average precision of retrieval by class: how early the items of the query's class come.

Reference:
    Used so by cross-modal hashing and adversarial retrieval (ACMR: Wang et al. 2017); ties as in scikit-learn's
    `average_precision_score`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from torch import Tensor

from diptych.core.errors import UserError


@torch.no_grad()
def mean_average_precision(
    query: Float[Tensor, "q d"],
    gallery: Float[Tensor, "g d"],
    *,
    query_label: Int[Tensor, " q"],
    gallery_label: Int[Tensor, " g"],
    chunk: int = 256,
) -> float:
    """Average over queries the average precision of the gallery ranked by inner product with the query.

    Args:
        query: one vector per query; unit vectors for cosine similarity.
        gallery: one vector per item that may be found.
        query_label: class of each query.
        gallery_label: class of each item; those of the query's class are relevant.
        chunk: queries scored at a time; memory is chunk x gallery.

    Returns:
        A number in (0, 1], 1 when every relevant item comes before every other. A query of whose class the gallery
        has nothing is left out. Items that tie share the precision after the last of them.

    Raises:
        UserError: when no query has a relevant item, or vectors are not finite.
    """
    if not (bool(query.isfinite().all()) and bool(gallery.isfinite().all())):
        raise UserError("cannot rank: some vectors hold NaN or infinity; look at the training of the model")
    total, counted, items = 0.0, 0, gallery.float()
    for vectors, labels in zip(torch.split(query, chunk), torch.split(query_label, chunk), strict=True):
        relevant = labels[:, None] == gallery_label
        some = relevant.any(1)
        total += float(average_precision(vectors[some].float() @ items.T, relevant[some]).sum())
        counted += int(some.sum())
    if counted == 0:
        raise UserError("no query has an item of its class in the gallery: the labels of the two sides do not match")
    return total / counted


def average_precision(scores: Float32[Tensor, "q g"], relevant: Bool[Tensor, "q g"]) -> Float64[Tensor, " q"]:
    """Return for each query the mean, over its relevant items, of the precision at the item's place.

    Every query must have a relevant item.
    """
    ordered, order = scores.sort(dim=1, descending=True)
    hits = relevant.gather(1, order)
    ends = torch.ones_like(hits)
    ends[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    place = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(order)
    last = torch.where(ends, place, scores.shape[1]).flip(1).cummin(1).values.flip(1)
    precision = hits.cumsum(1).gather(1, last - 1).double() / last
    return (precision * hits).sum(1) / hits.sum(1)
