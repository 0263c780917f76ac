"""An explanation in the hand: a heat map over the picture and a weight for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError, unknown
from diptych.core.model import Model
from diptych.data.tokenizer import Tokenizer
from diptych.explain.answer import evidence_of
from diptych.explain.caption import maps_of_words
from diptych.explain.maps import resized
from diptych.explain.pair import explain_pair
from diptych.explain.told import meant
from diptych.explain.words import by_word, read_by, tokens_of_words
from diptych.models.answering import AnswerModel
from diptych.models.captioning import CaptionModel

ANSWERS = 3
"""To a question, that have a map each."""


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
        unit: of the score: "cosine", or "log-probability" of the text or answer in nats.
        answers: of an answerer, some answers with their probability; the first is explained by `heat` and `words`.
        by_answer: a heat map in [0, 1] for each of them.
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
    answers: tuple[tuple[str, float], ...] = ()
    by_answer: Float32[np.ndarray, "a h w"] | None = None

    def parts(self) -> list[tuple[str, Float32[np.ndarray, "h w"]]]:
        """Return what has a heat map of its own, each with it: words of a caption, or answers."""
        if self.by_word is not None:
            return list(zip([word for word, _ in self.words], self.by_word, strict=True))
        if self.by_answer is not None:
            names = [f"{answer}: {100 * chance:.0f} %" for answer, chance in self.answers]
            return list(zip(names, self.by_answer, strict=True))
        return []


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
    answer: str = "",
) -> Explanation:
    """Say why a picture met a text, why a captioner would write it, or why a question about it got its answer.

    Args:
        model: in evaluation mode, with pictures and texts in one space; or one that writes captions, then each word has
            its own heat map; or one that answers, then each of some answers has.
        tokenizer: of its text side.
        spec: facts it was built for.
        pixels: of the model's size.
        text: what is longer than the model reads is cut; a question for a model that answers.
        method: "auto", "gradcam", "hirescam", "relevance", "rollout", "occlusion" or "random".
        against: other texts, to show what speaks for this text rather than for those.
        steady: average over small shifts of the picture; better, and takes nine times as long.
        answer: to the question, that is explained; the likeliest where empty.

    Raises:
        UserError: for an empty text, another method, or one that cannot see into this model.
    """
    if not text.strip():
        raise UserError("an empty text has no words to explain: give a caption")
    if answer and not isinstance(model, AnswerModel):
        raise UserError("an answer is explained of a system that answers questions: attention_vqa does")
    if isinstance(model, CaptionModel | AnswerModel):
        if against:
            raise UserError("against compares texts in one space with pictures, which this model has not: leave it out")
        if isinstance(model, CaptionModel):
            return _of_caption(model, tokenizer, spec, pixels, text, method=method)
        return _of_answer(model, tokenizer, spec, pixels, text, method=method, answer=answer)
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
) -> Explanation:
    image = pixels.to(next(model.parameters()).device)
    maps, score = maps_of_words(model, tokenizer, image, text, context=spec.context, method=method)
    weights = maps.amax((1, 2))
    weights = weights / weights.max().clamp(min=1e-12)
    words = [word for word, _ in tokens_of_words(tokenizer, text, spec.context)]
    return Explanation(
        heat=_unit(resized(maps.sum(0), spec.image_size)).numpy(),
        words=tuple(zip(words, weights.tolist(), strict=True)),
        score=score,
        method=meant(model, method),
        word_method=meant(model, method),
        picture=pixels.permute(1, 2, 0).cpu().numpy(),
        text=text,
        by_word=torch.stack([_unit(resized(each, spec.image_size)) for each in maps]).numpy(),
        unit="log-probability",
    )


def _of_answer(
    model: AnswerModel,
    tokenizer: Tokenizer,
    spec: DataSpec,
    pixels: UInt8[Tensor, "3 h w"],
    question: str,
    *,
    method: str,
    answer: str,
) -> Explanation:
    if answer and answer not in spec.answers:
        raise unknown("answer", answer, spec.answers)
    image = pixels.to(next(model.parameters()).device)
    tokens, content = (each.to(image.device) for each in read_by(tokenizer, question, spec.context))
    real = torch.ones_like(tokens[None], dtype=torch.bool)
    chances = model.answer(Batch(image=image[None], tokens=tokens[None], token_mask=real))[0]
    order = chances.argsort(descending=True).tolist()
    first = spec.answers.index(answer) if answer else order[0]
    shown = [first, *(place for place in order[:ANSWERS] if place != first)][:ANSWERS]
    found = evidence_of(model, image, tokens, content, torch.tensor(shown, device=image.device), method=method)
    maps = torch.stack([_unit(resized(each, spec.image_size)) for each in found.maps]).numpy()
    return Explanation(
        heat=maps[0],
        words=tuple(by_word(tokenizer, question, found.tokens)),
        score=float(chances[first].log()),
        method=meant(model, method),
        word_method="occlusion",
        picture=pixels.permute(1, 2, 0).cpu().numpy(),
        text=question,
        unit="log-probability",
        answers=tuple((spec.answers[place], float(chances[place])) for place in shown),
        by_answer=maps,
    )


def _unit(heat: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Bring a map to [0, 1]; one that is flat, by which no place is better than another, to zeros."""
    low, high = heat.min(), heat.max()
    if not torch.isfinite(high) or high - low <= 1e-6 * high.abs():
        return torch.zeros_like(heat)
    return (heat - low) / (high - low)
