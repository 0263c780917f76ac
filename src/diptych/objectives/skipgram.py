"""Skip-gram losses: words tell their neighbours from noise, and what they look like from what others look like.

Reference:
    Mikolov et al. 2013, arXiv 1310.4546 (negative sampling); Lazaridou, Pham and Baroni 2015, arXiv 1501.02598 (the
    hinge between a word and pictures). The window of a word is not drawn from 1..c: a neighbour at distance e counts
    with the probability (c - e + 1) / c that it would have been inside. Noise words are shared by the words of a row
    and weighted so that each pair expects the wanted number of them. Both are the same loss in expectation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def windows(mask: Bool[Tensor, "b t"], window: int, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "b t t"]:
    """Return how much each pair of a row counts: 1 for neighbours, less farther away, 0 beyond the window."""
    places = torch.arange(mask.shape[1], device=mask.device)
    apart = (places[:, None] - places).abs()
    weight = (window + 1 - apart).clamp(min=0).to(dtype) / window * (apart > 0)
    return weight * (mask[:, :, None] & mask[:, None])


def full(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return values in single precision at least: logarithms of what was rounded to half are too rough."""
    return values if values.dtype == torch.float64 else values.float()


def skipgram(
    centre: Float[Tensor, "b t d"],
    around: Float[Tensor, "b t d"],
    noise: Float[Tensor, "b k d"],
    tokens: Int[Tensor, "b t"],
    negatives: Int[Tensor, "b k"],
    weight: Float[Tensor, "b t t"],
    *,
    count: float,
) -> Float[Tensor, " b"]:
    """Return the loss of each row: of its pairs -log sigma(u_c v_w), and -log sigma(-u_n v_w) of noise words n.

    Noise that is the very neighbour is left out, as in word2vec's code.

    Args:
        centre: vectors v of the words of a row.
        around: vectors u of the same words as neighbours.
        noise: vectors u of the row's noise words.
        tokens: the words.
        negatives: the noise words.
        weight: of each pair (w, c), as `windows` gives it.
        count: noise words that a pair expects.

    Returns:
        Nats; for zero vectors, where no noise is a neighbour, (1 + count) ln 2 times the weights.
    """
    close = F.softplus(-full(centre @ around.transpose(1, 2)))
    far = F.softplus(full(centre @ noise.transpose(1, 2)))
    other = (tokens[:, :, None] != negatives[:, None]).to(weight)
    share = (count / negatives.shape[1]) * full(weight @ other)
    return (weight * close).sum((1, 2)) + (share * far).sum((1, 2))


def picture_hinge(
    right: Float[Tensor, "b t"],
    wrong: Float[Tensor, "b t k"],
    allowed: Bool[Tensor, "b t k"],
    *,
    margin: float,
    count: float,
) -> Float[Tensor, " b"]:
    """Return for each row the hinges max(0, margin - right + wrong) of its words, `count` times their mean over noise.

    Args:
        right: cosine of each word with its own picture.
        wrong: cosines with the pictures of noise words.
        allowed: which of these count: the word has a picture, and the noise word another one.
        margin: by how much the right picture must win.
        count: noise words that a word expects.

    Returns:
        In units of cosine; 0.3 for cosines 0.8 and 0.6, a margin of 0.5 and one noise word.
    """
    hinge = (margin - right[:, :, None] + wrong).clamp(min=0) * allowed
    return count * (hinge.sum(2) / allowed.sum(2).clamp(min=1)).sum(1)
