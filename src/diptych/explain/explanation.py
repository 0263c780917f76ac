"""An explanation in the hand: a heat map over the picture and a weight for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError, unknown
from diptych.core.model import Model
from diptych.data.tokenizer import Tokenizer
from diptych.explain.caption import maps_of_words
from diptych.explain.maps import resized
from diptych.explain.pair import METHODS, explain_pair
from diptych.explain.words import by_word, read_by, tokens_of_words
from diptych.models.captioning import CaptionModel


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a picture met a text.

    Args:
        heat: evidence in [0, 1] for each pixel of `picture`; zeros where nothing speaks for the text.
        words: each word of the text with its weight in [0, 1], the weightiest 1.
        score: the cosine that is explained.
        method: how the heat map was made, such as "gradcam", or "7 maps, most by relevance".
        word_method: how the words were weighed.
        picture: what the model saw: the picture made square.
        text: that was asked for.
        by_word: of a captioner, a heat map in [0, 1] for each word; None where one map is of the whole text.
        unit: of the score: "cosine", or "log-probability" of the text in nats.
    """

    heat: Float32[np.ndarray, "h w"]
    words: tuple[tuple[str, float], ...]
    score: float
    method: str
    word_method: str
    picture: UInt8[np.ndarray, "h w 3"]
    text: str
    by_word: Float32[np.ndarray, "k h w"] | None = None
    unit: str = "cosine"


def explain(
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    pixels: UInt8[Tensor, "3 h w"],
    text: str,
    *,
    method: str = "auto",
    against: Sequence[str] = (),
    steady: bool = True,
) -> Explanation:
    """Say why a picture met a text, or why a captioner would write it.

    Args:
        model: in evaluation mode, with pictures and texts in one space, or one that writes captions: then each word
            has its own heat map, by occlusion.
        tokenizer: of its text side.
        spec: facts it was built for.
        pixels: of the model's size.
        text: what is longer than the model reads is cut.
        method: "auto", "gradcam", "hirescam", "relevance", "rollout", "occlusion" or "random".
        against: other texts, to show what speaks for this text rather than for those.
        steady: average over small shifts of the picture; better, and takes nine times as long.

    Raises:
        UserError: for an empty text, another method, or one that cannot see into this model.
    """
    if not text.strip():
        raise UserError("an empty text has no words to explain: give a caption")
    if isinstance(model, CaptionModel):
        return _of_caption(model, tokenizer, spec, pixels, text, method=method, against=against)
    device = next(model.parameters()).device
    tokens, content = read_by(tokenizer, text, spec.context)
    others = [read_by(tokenizer, other, spec.context)[0].to(device) for other in against]
    found = explain_pair(
        model, pixels.to(device), tokens.to(device), content.to(device), method=method, against=others, steady=steady
    )
    return Explanation(
        heat=_unit(resized(found.grid, spec.image_size)).numpy(),
        words=tuple(by_word(tokenizer, text, found.tokens)),
        score=found.score,
        method=found.method,
        word_method=found.word_method,
        picture=pixels.permute(1, 2, 0).cpu().numpy(),
        text=text,
    )


def _of_caption(
    model: CaptionModel,
    tokenizer: Tokenizer,
    spec: DataSpec,
    pixels: UInt8[Tensor, "3 h w"],
    text: str,
    *,
    method: str,
    against: Sequence[str],
) -> Explanation:
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method not in ("auto", "occlusion"):
        raise UserError(
            f"{method} explains how a picture meets a text; the words of a captioner are explained by method=occlusion"
        )
    if against:
        raise UserError("against compares texts in one space with pictures, which a captioner has not: leave it out")
    image = pixels.to(next(model.parameters()).device)
    maps, score = maps_of_words(model, tokenizer, image, text, context=spec.context)
    weights = maps.amax((1, 2))
    weights = weights / weights.max().clamp(min=1e-12)
    words = [word for word, _ in tokens_of_words(tokenizer, text, spec.context)]
    return Explanation(
        heat=_unit(resized(maps.sum(0), spec.image_size)).numpy(),
        words=tuple(zip(words, weights.tolist(), strict=True)),
        score=score,
        method="occlusion",
        word_method="occlusion",
        picture=pixels.permute(1, 2, 0).cpu().numpy(),
        text=text,
        by_word=torch.stack([_unit(resized(each, spec.image_size)) for each in maps]).numpy(),
        unit="log-probability",
    )


def _unit(heat: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Bring a map to [0, 1]; one that is flat, by which no place is better than another, to zeros."""
    low, high = heat.min(), heat.max()
    if not torch.isfinite(high) or high - low <= 1e-6 * high.abs():
        return torch.zeros_like(heat)
    return (heat - low) / (high - low)
