"""Why an answer was given: the parts of the picture and the words of the question that it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from diptych.core.batch import Batch
from diptych.explain.occlusion import without_words
from diptych.explain.told import Told, maps_of
from diptych.models.answering import AnswerModel


@dataclass(frozen=True, slots=True)
class AnswerEvidence:
    """Where answers to a question come from.

    Args:
        maps: for each answer evidence in each cell of a grid, >= 0; zeros where the picture does not matter.
        tokens: of the question: how much each did for the first answer, 0 for marks.
    """

    maps: Float[Tensor, "k i j"]
    tokens: Float[Tensor, " t"]


def evidence_of(
    model: AnswerModel,
    image: Shaped[Tensor, "c h w"],
    tokens: Int[Tensor, " t"],
    content: Bool[Tensor, " t"],
    answers: Int[Tensor, " k"],
    *,
    method: str = "auto",
) -> AnswerEvidence:
    """Say where in a picture answers come from, and the first of them by which words of the question.

    Args:
        model: in evaluation mode.
        image: of the model's size, on its device.
        tokens: of the question, without padding.
        content: which of them are words, not marks of begin and end.
        answers: places among the answers that the model knows.
        method: as `maps_of` takes it; the words are left out one by one, whatever the method.

    Raises:
        UserError: for a method that cannot see into this model.
    """
    maps = maps_of(answers_told(model, tokens, answers), model, image, method=method)

    def first(questions: Tensor) -> Tensor:
        pictures = Batch(image=image.expand(len(questions), -1, -1, -1), pair_id=torch.zeros(len(questions)).long())
        return _log_probs(model, pictures, questions)[:, answers[0]]

    return AnswerEvidence(maps, without_words(first, tokens, content).cpu())


def answers_told(model: AnswerModel, tokens: Int[Tensor, " t"], answers: Int[Tensor, " k"]) -> Told:
    """Return what gives the log-probability of each of some answers to a question, in nats."""
    return lambda pictures: _log_probs(model, pictures, tokens.expand(len(pictures), -1))[:, answers]


def _log_probs(model: AnswerModel, pictures: Batch, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n a"]:
    asked = replace(pictures, tokens=tokens, token_mask=torch.ones_like(tokens, dtype=torch.bool))
    return model.log_chances(asked)
