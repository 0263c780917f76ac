"""Retrieval scores both ways: R@K, median and mean rank, exact, in bounded memory, from one matrix product.

Reference:
    The protocol with several captions a picture: Karpathy and Fei-Fei 2015, arXiv 1412.2306. Ranks are counted, not
    sorted, so that ties are settled by a stated rule and 100,000 x 100,000 scores never stand in memory together.
"""

from __future__ import annotations

from typing import TypedDict

from jaxtyping import Float, Float64, Int
from torch import Tensor

from diptych.core.errors import UserError
from diptych.metrics.ranks import ranks, ranks_of_scores


class Retrieval(TypedDict):
    """Scores of both directions by name, and the number of texts."""

    image_to_text: dict[str, float]
    text_to_image: dict[str, float]
    pairs: int


def retrieval(
    image: Float[Tensor, "m d"],
    text: Float[Tensor, "n d"],
    *,
    image_id: Int[Tensor, " m"],
    text_id: Int[Tensor, " n"],
    text_key: Int[Tensor, " n"] | None = None,
    ks: tuple[int, ...] = (1, 5, 10),
    ties: str = "pessimistic",
    chunk: int | None = None,
) -> Retrieval:
    """Score how well images find their texts and texts their images, by inner product in float32.

    A query counts by the best-ranked of its positives; its other positives are not in the way. Text j is a positive
    of image i when it carries the image's id or, with `text_key`, is the same sentence as a text that does.

    Args:
        image: one vector per image; unit vectors for cosine similarity.
        text: one vector per text.
        image_id: which picture each image shows.
        text_id: which picture each text describes.
        text_key: equal numbers for equal sentences, so that a sentence said of two pictures finds either.
        ks: the K of R@K.
        ties: how a negative with exactly the score of the best positive counts: against the query ("pessimistic", so
            that constant scores give the last rank and a collapsed model no credit), for it, or by half.
        chunk: images compared at a time, with four times as many texts; the scores do not depend on it.

    Returns:
        For each direction R@K in [0, 1] (`"r@1"` ...), `"median_rank"` and `"mean_rank"` (1 is perfect), and as
        `"pairs"` the number of texts.

    Raises:
        UserError: for an image without text, a text without image, vectors that are not finite, unknown `ties`.

    Example:
        >>> import torch
        >>> ids = torch.arange(3)
        >>> retrieval(torch.eye(3), torch.eye(3), image_id=ids, text_id=ids)["image_to_text"]["r@1"]
        1.0
    """
    of_images, of_texts = ranks(
        image, text, image_id=image_id, text_id=text_id, text_key=text_key, ties=ties, chunk=chunk
    )
    return {
        "image_to_text": summary(of_images, ks=ks),
        "text_to_image": summary(of_texts, ks=ks),
        "pairs": len(text),
    }


def retrieval_of_scores(
    scores: Float[Tensor, "m n"],
    *,
    image_id: Int[Tensor, " m"],
    text_id: Int[Tensor, " n"],
    text_key: Int[Tensor, " n"] | None = None,
    ks: tuple[int, ...] = (1, 5, 10),
    ties: str = "pessimistic",
) -> Retrieval:
    """Score retrieval as `retrieval` does where an image and a text are scored together, not by two vectors.

    The matrix stands whole, 4 bytes a pair: computing a score again costs thousands of times more than keeping it.

    Args:
        scores: one row an image, one column a text; higher is better.
        image_id: which picture each image shows.
        text_id: which picture each text describes.
        text_key: equal numbers for equal sentences, so that a sentence said of two pictures finds either.
        ks: the K of R@K.
        ties: as in `retrieval`.

    Returns:
        The same as `retrieval`.

    Raises:
        UserError: for an image without text, a text without image, scores that are not finite, unknown `ties`.
    """
    of_images, of_texts = ranks_of_scores(scores, image_id=image_id, text_id=text_id, text_key=text_key, ties=ties)
    return {
        "image_to_text": summary(of_images, ks=ks),
        "text_to_image": summary(of_texts, ks=ks),
        "pairs": scores.shape[1],
    }


def summary(ranks: Float64[Tensor, " q"], *, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Turn ranks into R@K, median and mean rank.

    Raises:
        UserError: for a K below 1.
    """
    if min(ks, default=1) < 1:
        raise UserError(f"R@K counts the first K results: K must be 1 or more, not {min(ks)}")
    scores = {f"r@{k}": (ranks <= k).double().mean().item() for k in ks}
    return scores | {"median_rank": ranks.quantile(0.5).item(), "mean_rank": ranks.mean().item()}


def rsum(scores: Retrieval) -> float:
    """Add up every R@K of both directions: one number to compare systems by, at best 6 with the usual three K."""
    both = (scores["image_to_text"], scores["text_to_image"])
    return sum(value for direction in both for name, value in direction.items() if name.startswith("r@"))
