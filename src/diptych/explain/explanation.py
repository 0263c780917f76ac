"""An explanation in the hand: a heat map over the picture and a weight for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.tokenizer import Tokenizer
from diptych.explain.maps import resized
from diptych.explain.pair import explain_pair
from diptych.explain.words import by_word, read_by


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a picture met a text.

    Args:
        heat: evidence in [0, 1] for each pixel of `picture`; zeros where nothing speaks for the text.
        words: each word of the text with its weight in [0, 1], the weightiest 1.
        score: the cosine that is explained.
        method: how the heat map was made, such as "gradcam on 8 x 8".
        word_method: how the words were weighed.
        picture: what the model saw: the picture made square.
        text: that was asked for.
    """

    heat: Float32[np.ndarray, "h w"]
    words: tuple[tuple[str, float], ...]
    score: float
    method: str
    word_method: str
    picture: UInt8[np.ndarray, "h w 3"]
    text: str


def explain(
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    pixels: UInt8[Tensor, "3 h w"],
    text: str,
    *,
    method: str = "auto",
    against: Sequence[str] = (),
) -> Explanation:
    """Say why a picture met a text.

    Args:
        model: in evaluation mode, with pictures and texts in one space.
        tokenizer: of its text side.
        spec: facts it was built for.
        pixels: of the model's size.
        text: what is longer than the model reads is cut.
        method: "auto", "gradcam", "hirescam", "relevance", "rollout", "occlusion" or "random".
        against: other texts, to show what speaks for this text rather than for those.

    Raises:
        UserError: for an empty text, another method, or one that cannot see into this model.
    """
    if not text.strip():
        raise UserError("an empty text has no words to explain: give a caption")
    device = next(model.parameters()).device
    tokens, content = read_by(tokenizer, text, spec.context)
    others = [read_by(tokenizer, other, spec.context)[0].to(device) for other in against]
    found = explain_pair(model, pixels.to(device), tokens.to(device), content.to(device), method=method, against=others)
    return Explanation(
        heat=_unit(resized(found.grid, spec.image_size)).numpy(),
        words=tuple(by_word(tokenizer, text, found.tokens)),
        score=found.score,
        method=found.method,
        word_method=found.word_method,
        picture=pixels.permute(1, 2, 0).cpu().numpy(),
        text=text,
    )


def _unit(heat: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Bring a map to [0, 1]; one that is flat, by which no place is better than another, to zeros."""
    low, high = heat.min(), heat.max()
    if not torch.isfinite(high) or high - low <= 1e-6 * high.abs():
        return torch.zeros_like(heat)
    return (heat - low) / (high - low)
