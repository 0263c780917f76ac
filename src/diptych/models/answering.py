"""What all systems that answer share: a question is read, and every answer that the training data knew gets a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from pydantic import Field
from torch import Tensor, nn

from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec, States
from diptych.core.errors import UserError
from diptych.core.model import Answerer, Loss, Model
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.base import TextEncoder
from diptych.encoders.towers import Count, TowerConfig
from diptych.nn.linear import Linear
from diptych.nn.standardise import Standardise
from diptych.objectives.answers import one_answer, share_right, soft_answers


class AnswerConfig(TowerConfig):
    """What an answerer is made of; the towers' fields are inherited."""

    learns: ClassVar[str] = "answers"

    image_encoder: str = "resnet"
    text_layers: Count = Field(default=2, description="transformer: number of blocks")
    text_pool: str = Field(default="mean", description="transformer: last or mean; pretrained: also class, max")
    dim: Count = Field(default=256, description="width in which picture and question meet")
    hidden: Count = Field(default=512, description="width before the answers")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="before the answers and inside")
    standardise: bool = Field(default=True, description="bring features of frozen towers to one scale first")
    objective: Literal["softmax", "scores"] = Field(
        default="softmax", description="one right answer, or what each answer is worth by several people"
    )


class Question(nn.Module):
    """What a text tower makes of a question, brought to one width.

    Args:
        tower: the text tower.
        dim: width of the result.
        words: whether the words are read too, beside the summary.
        standardise: bring every feature of a frozen tower to mean 0 and deviation 1 first.
    """

    def __init__(self, tower: TextEncoder, dim: int, *, words: bool, standardise: bool) -> None:
        super().__init__()
        even = standardise and tower.frozen
        self.even_summary = Standardise(tower.dim) if even else None
        self.even_words = Standardise(tower.token_dim) if even and words else None
        self.summary = Linear(tower.dim, dim)
        self.words = Linear(tower.token_dim, dim) if words else None

    def forward(self, states: States) -> Float[Tensor, "b d"]:
        """Return one vector a question."""
        summary = states.summary if self.even_summary is None else self.even_summary(states.summary)
        vector: Tensor = self.summary(summary)
        return vector

    def read(self, states: States) -> tuple[Float[Tensor, "b t d"], Bool[Tensor, "b t"]]:
        """Return one vector a word, and which are real."""
        assert self.words is not None
        tokens = states.tokens if self.even_words is None else self.even_words(states.tokens)
        return self.words(tokens), states.mask

    def look(self, states: States) -> None:
        """Take in features for their statistics."""
        if self.even_summary is not None:
            self.even_summary.look(states.summary)
        if self.even_words is not None:
            self.even_words.look(states.tokens, states.mask)

    def settle(self) -> None:
        """Use the statistics of what was taken in."""
        for even in (self.even_summary, self.even_words):
            if even is not None:
                even.settle()


class AnswerModel(Model, Answerer, ABC):
    """A system that scores every known answer.

    Args:
        config: of the system.
        spec: the data it is built for.

    Raises:
        UserError: when the data knows no answers.
    """

    def __init__(self, config: AnswerConfig, spec: DataSpec) -> None:
        super().__init__()
        if not spec.answers:
            raise UserError("there are no answers to choose from: this system learns from questions with answers")
        self.objective = config.objective
        self.choose = nn.Sequential(
            nn.LayerNorm(config.dim),
            Linear(config.dim, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            Linear(config.hidden, len(spec.answers)),
        )

    @abstractmethod
    def logits(self, batch: Batch) -> Float[Tensor, "b a"]:
        """Score every answer to `batch.tokens`; without pictures from the questions alone."""

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the loss of a batch in nats a question."""
        logits = self.logits(batch)
        if self.objective == "softmax":
            answer = batch.need("answer")
            total = one_answer(logits, answer)
            return Loss(total, {"answer": total.detach(), "right": share_right(logits, answer)})
        total = soft_answers(logits, batch.need("answer_scores"))
        return Loss(total, {"answer": total.detach()})

    def answer(self, batch: Batch) -> Float[Tensor, "b a"]:
        """Return how likely each answer is: a distribution, or with `scores` each judged by itself."""
        with torch.no_grad():
            logits = self.logits(batch).float()
        return logits.softmax(1) if self.objective == "softmax" else logits.sigmoid()

    def log_chances(self, batch: Batch) -> Float[Tensor, "b a"]:
        """Return the logarithms of that in nats, with the gradient that explanations follow."""
        logits = self.logits(batch).float()
        return logits.log_softmax(1) if self.objective == "softmax" else F.logsigmoid(logits)


def read_question(tower: TextEncoder, batch: Batch) -> States:
    """Return what a text tower makes of the questions, or what it made of them beforehand."""
    if batch.text_states is not None:
        return batch.text_states
    states: States = tower(batch.need("tokens"), batch.need("token_mask"))
    return states


def answers_to(
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    image: Shaped[Tensor, "c h w"],
    questions: Sequence[str] | str,
    *,
    count: int = 5,
) -> list[list[tuple[str, float]]]:
    """Answer questions about one picture.

    Args:
        model: one that answers.
        tokenizer: of its questions.
        spec: with the answers that it knows.
        image: pixels of the model's size, on its device.
        questions: in words; one or several.
        count: answers to each.

    Returns:
        For each question its likeliest answers with their probabilities, the best first.

    Raises:
        UserError: for a model that does not answer, or an empty question.
    """
    if not isinstance(model, Answerer):
        raise cannot(model, Answerer)
    texts = [questions] if isinstance(questions, str) else list(questions)
    if not texts or not all(text.strip() for text in texts):
        raise UserError("the question is empty; ask for example: what colour is the circle?")
    tokens, mask = tokenizer(texts, spec.context)
    rows = len(texts)
    batch = Batch(
        image=image.expand(rows, -1, -1, -1), tokens=tokens, token_mask=mask, pair_id=torch.zeros(rows).long()
    )
    top = model.answer(batch.to(image.device)).topk(min(count, len(spec.answers)), dim=1)
    return [
        [(spec.answers[place], chance) for place, chance in zip(places, chances, strict=True)]
        for places, chances in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
