"""Answer data: pictures with their questions as batches, and every question of a split to be judged by its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from diptych.core import runtime
from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Answerer, Model
from diptych.data.images import stack
from diptych.data.loader import Example, Loader
from diptych.data.questions import Asked, Asking, Questions
from diptych.data.source import Problem, Row
from diptych.data.tokenizer import Tokenizer
from diptych.data.view import View
from diptych.encoders.offers import Sighted
from diptych.metrics.answers import Told, answer_scores, commonest, soft_targets
from diptych.tasks.data import Judge, TaskData
from diptych.tasks.features import Features
from diptych.tasks.held_out import MONITOR as LOSS_MONITOR
from diptych.tasks.held_out import held_out

MONITOR = "accuracy"
JUDGED = 8
"""Questions of a picture that are judged together, for which it is encoded once."""


class AnswerSettings(Config):
    """How questions and answers are read from the data."""

    batch_size: int = Field(default=256, gt=0, description="questions in a batch, of all processes together")
    questions: int = Field(default=1, gt=0, description="questions a picture in a batch, for which it is encoded once")
    augment: Literal["none", "crop"] = Field(default="none", description="crop training pictures at random")
    workers: int = Field(default=2, ge=0, description="threads that read pictures; 0: none beside the main one")
    cache: bool = Field(default=True, description="keep the outputs of frozen towers on disk")
    several: Literal["people", "together"] = Field(
        default="people", description="several answers: of several people, or together one answer (lamp, table)"
    )
    least: int = Field(default=1, ge=1, description="how often an answer must be given in training to be learnt")
    question_column: str = Field(default="", description="column of the questions; empty: guessed")
    answer_column: str = Field(default="", description="column of the answers; empty: guessed")
    kind_column: str = Field(default="", description="column of the kinds of questions; empty: guessed")

    def asking(self) -> Asking:
        """Return how questions are found."""
        return Asking(self.question_column, self.answer_column, self.kind_column, self.several == "together")


class Units(View):
    """Pictures with some of their questions each: what the loader takes as one example.

    Args:
        source: pictures with questions.
        rows: which pictures.
        size: questions of a unit at most; a picture with more makes several units.
    """

    def __init__(self, source: Questions, rows: Int64[np.ndarray, " n"], *, size: int) -> None:
        counts = np.array([-(-len(source.asked(row)) // size) for row in rows.tolist()], dtype=np.int64)
        super().__init__(source, how=f"{size} questions at a time", kept=np.repeat(rows, counts))
        self.size = size
        self.number = np.arange(len(self.kept)) - np.repeat(np.cumsum(counts) - counts, counts)

    def change(self, row: Row, place: int) -> Row:
        """Change nothing: which questions are meant depends on the epoch."""
        return row

    def places(self, unit: int, *, seed: int | None, epoch: int) -> tuple[int, list[int]]:
        """Return the picture of a unit, and which of its questions; drawn anew each epoch where there is a seed."""
        row, number = int(self.kept[unit]), int(self.number[unit])
        order = np.arange(len(self.source.row(row).captions))
        if seed is not None and self.size > 1:
            order = np.random.default_rng((seed, epoch, row)).permutation(order)
        return row, order[number * self.size : (number + 1) * self.size].tolist()


@dataclass(frozen=True, slots=True)
class Meeting:
    """Turns units into batches: pixels or features once for each question, its tokens, and what answers are worth.

    Args:
        data: whose questions.
        units: what is loaded.
        shuffled: draw the questions of a unit anew each epoch.
    """

    data: AnswerData
    units: Units
    shuffled: bool

    def __call__(self, examples: list[Example]) -> Batch:
        """Make a batch."""
        data = self.data
        rows: list[int] = []
        places: list[int] = []
        images: list[UInt8[Tensor, "3 s s"]] = []
        for example in examples:
            seed = example.seed if self.shuffled else None
            row, chosen = self.units.places(example.index, seed=seed, epoch=example.epoch)
            rows += [row] * len(chosen)
            places += chosen
            if example.image is not None:
                images += [example.image] * len(chosen)
        asked = [data.source.asked(row)[place] for row, place in zip(rows, places, strict=True)]
        at, nth = np.array(rows, dtype=np.int64), np.array(places, dtype=np.int64)
        tokens, mask = data.tokenizer([one.question for one in asked], data.spec.context)
        scores = data.worth(asked)
        right = [data.known.get(one.answer, -1) for one in asked]
        return Batch(
            image=stack(images) if images else None,
            tokens=tokens,
            token_mask=mask,
            image_states=data.features.of_images(at),
            text_states=data.features.of_texts(at, nth),
            pair_id=torch.from_numpy(at),
            answer=torch.tensor(right),
            answer_scores=scores,
            question_id=torch.from_numpy(nth),
        )


@dataclass(frozen=True)
class AnswerData(TaskData):
    """Pictures with questions, and all that turns them into batches for one model.

    Args:
        source: pictures with questions in the place of captions.
        tokenizer: of the questions.
        spec: facts the model was built for; its answers are all that can be given.
        settings: batch size and the like.
        sees: whether pictures are looked at.
        crop: how a picture becomes square, as the image tower wants it.
        features: what frozen towers made of pictures and questions.
        seed: of the order.
    """

    source: Questions
    tokenizer: Tokenizer
    spec: DataSpec
    settings: AnswerSettings
    sees: bool = True
    crop: str = "squash"
    features: Features = field(default_factory=Features)
    seed: int = 0

    @cached_property
    def known(self) -> dict[str, int]:
        """The place of each answer that can be given."""
        return {answer: place for place, answer in enumerate(self.spec.answers)}

    @cached_property
    def usual(self) -> dict[str, str]:
        """The commonest answer in training to each kind of question."""
        kinds: dict[str, list[str]] = {}
        for row in self.source.rows("train").tolist():
            for one in self.source.asked(row):
                kinds.setdefault(one.kind, []).append(one.answer)
        return {kind: commonest(answers)[0] for kind, answers in kinds.items()}

    def training(self) -> Loader:
        """Return shuffled batches in which every question comes once an epoch.

        Raises:
            UserError: when the batch is larger than the data or not a multiple of the processes.
        """
        world, batch, each = runtime.world(), self.settings.batch_size, self.settings.questions
        if batch % (world * each):
            fits = max(1, batch // (world * each)) * world * each
            raise UserError(
                f"batch_size {batch} is not a multiple of {world} processes with {each} questions a picture; use {fits}"
            )
        units = Units(self.source, self.readable("train"), size=each)
        return Loader(
            units,
            np.arange(len(units)),
            Meeting(self, units, shuffled=True),
            batch_size=batch // (world * each),
            size=self.spec.image_size,
            seed=self.seed,
            shuffle=True,
            workers=self.settings.workers,
            rank=runtime.rank(),
            world=world,
            crop="random" if self.settings.augment == "crop" else self.crop,
            pictures=self.reads_pixels,
        )

    def judged(self, split: str, model: Model) -> Loader | None:
        """Return every question of a split once; None when it has none."""
        return self.asked(self.readable(split))

    def asked(self, rows: Int64[np.ndarray, " n"]) -> Loader | None:
        """Return every question about some pictures once, in order; None when there are none."""
        units = Units(self.source, rows, size=JUDGED)
        if len(units) == 0:
            return None
        return Loader(
            units,
            np.arange(len(units)),
            Meeting(self, units, shuffled=False),
            batch_size=max(1, self.settings.batch_size // JUDGED),
            size=self.spec.image_size,
            workers=self.settings.workers,
            crop=self.crop,
            pictures=self.reads_pixels,
        )

    def judge(self, model: Model) -> Judge:
        """Judge by the answers, or by the loss of a model that gives none."""
        return Judge((self.score,), MONITOR) if isinstance(model, Answerer) else Judge((held_out,), LOSS_MONITOR)

    def unread(self) -> tuple[Problem, ...]:
        """Return the pictures that a frozen tower could not be asked about."""
        return self.features.problems

    @property
    def reads_pixels(self) -> bool:
        """Whether pictures have to be decoded."""
        return self.sees and self.features.image is None

    def readable(self, split: str) -> Int64[np.ndarray, " k"]:
        """Return the pictures of a split that are asked about, without those no features could be computed for."""
        rows = self.features.readable(self.source.rows(split))
        return np.array([row for row in rows.tolist() if self.source.asked(row)], dtype=np.int64)

    def worth(self, asked: Sequence[Asked]) -> Float[Tensor, "b a"]:
        """Return what each answer would be worth to each question, in [0, 1]."""
        scores = torch.zeros(len(asked), len(self.known))
        for row, one in enumerate(asked):
            for place, worth in soft_targets(one.answers, self.known).items():
                scores[row, place] = worth
        return scores

    def told(self, model: Model, batches: Iterable[Batch]) -> list[tuple[int, Asked, Told]]:
        """Ask a model.

        Returns:
            For each question the number of its picture, the question, and what was answered.

        Raises:
            UserError: when the model gives no answers.
        """
        if not isinstance(model, Answerer):
            raise cannot(model, Answerer)
        device = next(model.parameters()).device
        found = []
        for batch in batches:
            there = batch.to(device)
            given = model.answer(there).argmax(1).tolist()
            blind: list[int | None] = [None] * len(given)
            if isinstance(model, Sighted):
                blind = model.answer(dataclasses.replace(there, image=None, image_states=None)).argmax(1).tolist()
            for row, place, one, other in zip(
                batch.need("pair_id").tolist(), batch.need("question_id").tolist(), given, blind, strict=True
            ):
                asked = self.source.asked(row)[place]
                found.append((row, asked, self._told(asked, one, other)))
        return found

    def score(self, model: Model, batches: Iterable[Batch]) -> dict[str, float]:
        """Score the answers of a model, by flat names."""
        return answer_scores([told for _, _, told in self.told(model, batches)])

    def _told(self, asked: Asked, given: int, blind: int | None) -> Told:
        answers = self.spec.answers
        return Told(
            given=answers[given],
            answer=asked.answer,
            answers=asked.answers,
            kind=asked.kind,
            constant=answers[0],
            usual=self.usual.get(asked.kind, answers[0]),
            blind=None if blind is None else answers[blind],
        )
