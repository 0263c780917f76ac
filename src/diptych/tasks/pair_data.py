"""Pair data: pictures with their captions as batches, and as a gallery in which each side looks for the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from pydantic import Field
from torch import Tensor

from diptych.core import runtime
from diptych.core.batch import Batch, DataSpec, States
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.data.images import stack
from diptych.data.loader import Example, Loader
from diptych.data.prompts import PROMPTS
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.tasks.data import Judge, TaskData
from diptych.tasks.features import Features
from diptych.tasks.held_out import MONITOR as LOSS_MONITOR
from diptych.tasks.held_out import held_out
from diptych.tasks.retrieval import MONITOR, score


class PairSettings(Config):
    """How pairs are read from the data."""

    batch_size: int = Field(default=256, gt=0, description="pairs in a batch, of all processes together")
    captions: int = Field(default=1, gt=0, description="captions a picture in a batch; more suit cached features only")
    augment: Literal["none", "crop"] = Field(default="none", description="crop training pictures at random")
    workers: int = Field(default=2, ge=0, description="threads that read pictures; 0: none beside the main one")
    cache: bool = Field(default=True, description="keep the outputs of frozen towers on disk")
    labels: bool = Field(default=False, description="read each picture's class too, from the label column")
    prompts: tuple[str, ...] = Field(
        default=PROMPTS, description="captions of a picture that has a label alone, {} for the label; empty: none"
    )
    only: str = Field(default="", description="learn only where a column has a value, as source=human; empty: all")
    exclude: str = Field(default="", description="do not learn where a column has a value, as source=generated")
    noise: float = Field(default=0.0, ge=0, le=1, description="share of training pictures given others' captions")


@dataclass(frozen=True, slots=True)
class PairData(TaskData):
    """A source, and all that turns its rows into batches for one model.

    Args:
        source: pictures with captions.
        tokenizer: of the text tower.
        spec: facts the model was built for.
        settings: batch size and the like.
        crop: how a picture becomes square, as the image tower wants it.
        features: what frozen towers made of the source, read in the place of pixels and words.
        seed: of the order and of which caption is drawn.
        numbers: give the words' numbers beside what a frozen text tower made of them.
    """

    source: Source
    tokenizer: Tokenizer
    spec: DataSpec
    settings: PairSettings
    crop: str = "squash"
    features: Features = field(default_factory=Features)
    seed: int = 0
    numbers: bool = False

    def judge(self, model: Model) -> Judge:
        """Judge by retrieval, or by the loss where a model has no space for both sides."""
        if isinstance(model, PairEncoder):
            return Judge((score,), MONITOR)
        return Judge((held_out,), LOSS_MONITOR)

    def judged(self, split: str, model: Model) -> Gallery | Loader | None:
        """Return every picture and caption of a split once; for a model without retrieval, pairs."""
        return self.gallery(split) if isinstance(model, PairEncoder) else self.held_out(split)

    def unread(self) -> tuple[Problem, ...]:
        """Return the pictures that frozen towers could not be asked about."""
        return self.features.problems

    def training(self) -> Loader:
        """Return shuffled batches of a picture with one of its captions, drawn anew each epoch.

        Raises:
            UserError: when the batch is larger than the data or not a multiple of the processes.
        """
        world, batch, each = runtime.world(), self.settings.batch_size, self.settings.captions
        if batch % (world * each):
            fits = max(1, batch // (world * each)) * world * each
            raise UserError(
                f"batch_size {batch} is not a multiple of {world} processes with {each} captions a picture; use {fits}"
            )
        return Loader(
            self.source,
            self.readable(self.source.rows("train")),
            self.collate,
            batch_size=batch // (world * each),
            size=self.spec.image_size,
            seed=self.seed,
            shuffle=True,
            workers=self.settings.workers,
            rank=runtime.rank(),
            world=world,
            crop="random" if self.settings.augment == "crop" else self.crop,
            pictures=self.features.image is None,
        )

    def held_out(self, split: str) -> Loader | None:
        """Return every picture of a split with one of its captions, always the same; None when the split is empty."""
        rows = self.readable(self.source.rows(split))
        if len(rows) == 0:
            return None
        return Loader(
            self.source,
            rows,
            self.collate,
            batch_size=self.settings.batch_size,
            size=self.spec.image_size,
            seed=self.seed,
            workers=self.settings.workers,
            crop=self.crop,
            pictures=self.features.image is None,
        )

    def gallery(self, split: str) -> Gallery | None:
        """Return every picture and every caption of a split once; None when the split is empty."""
        rows = self.readable(self.source.rows(split))
        return Gallery(self, rows) if len(rows) else None

    def readable(self, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
        """Leave out rows without a caption, and those whose picture the features could not be computed for."""
        rows = self.features.readable(rows)
        return np.array([row for row in rows.tolist() if self.source.row(row).captions], dtype=np.int64)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pair each picture with one or several of its captions, drawn by the example's own random numbers."""
        drawn = [place for example in examples for place in _draw(example, self.settings.captions)]
        examples = [example for example in examples for _ in range(self.settings.captions)]
        rows = np.array([example.index for example in examples], dtype=np.int64)
        tokens, mask = None, None
        if self.features.text is None or self.numbers:
            tokens, mask = self.tokens([e.row.captions[k] for e, k in zip(examples, drawn, strict=True)])
        return Batch(
            image=self.pixels(examples),
            tokens=tokens,
            token_mask=mask,
            image_states=self.view(rows, examples[0]),
            text_states=self.features.of_texts(rows, np.array(drawn, dtype=np.int64)),
            label=self.labels(examples),
            pair_id=torch.from_numpy(rows),
        )

    def labels(self, examples: Sequence[Example]) -> Int[Tensor, " b"] | None:
        """Number the classes of some examples; -1 where a row has none, None where there are none."""
        if not self.spec.classes:
            return None
        places = {name: place for place, name in enumerate(self.spec.classes)}
        return torch.tensor([places.get(str(example.row.fields.get("label")), -1) for example in examples])

    def view(self, rows: Int64[np.ndarray, " k"], first: Example) -> States | None:
        """Return what the image tower made of some rows: of all of them as they are, or of all mirrored."""
        mirrored = self.features.mirrored is not None and first.rng.random() < 0.5
        return self.features.of_mirrored(rows) if mirrored else self.features.of_images(rows)

    def collate_images(self, examples: Sequence[Example]) -> Batch:
        """Make a batch of pictures alone."""
        rows = np.array([example.index for example in examples], dtype=np.int64)
        return Batch(
            image=self.pixels(examples),
            image_states=self.features.of_images(rows),
            mirrored_states=self.features.of_mirrored(rows),
            pair_id=torch.from_numpy(rows),
        )

    def pixels(self, examples: Sequence[Example]) -> Tensor | None:
        """Stack the examples' pictures; None when features stand in for them."""
        images = [example.image for example in examples if example.image is not None]
        return stack(images) if images else None

    def tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Turn texts into ids of at most the spec's context."""
        return self.tokenizer(texts, self.spec.context)


def _draw(example: Example, count: int) -> list[int]:
    """Draw places of captions, none twice before each was drawn once."""
    there = len(example.row.captions)
    if count == 1:
        return [int(example.rng.integers(there))]
    rounds = [example.rng.permutation(there) for _ in range(-(-count // there))]
    return [int(place) for place in np.concatenate(rounds)[:count]]


class Gallery:
    """Batches for scoring: first every picture of some rows once, then every caption once."""

    def __init__(self, data: PairData, rows: Int64[np.ndarray, " n"], *, batch_size: int = 256) -> None:
        self.data, self.rows, self.batch_size = data, rows, batch_size
        captions = [len(data.source.row(int(row)).captions) for row in rows]
        self.text_rows = np.repeat(rows, captions)
        self.text_places = np.concatenate([np.arange(count) for count in captions]).astype(np.int64)
        self._images = Loader(
            data.source,
            rows,
            data.collate_images,
            batch_size=batch_size,
            size=data.spec.image_size,
            workers=data.settings.workers,
            crop=data.crop,
            pictures=data.features.image is None,
        )

    def __len__(self) -> int:
        """Count the batches."""
        return len(self._images) + -(-len(self.text_rows) // self.batch_size)

    @property
    def skipped(self) -> list[Problem]:
        """Pictures that could not be read."""
        return self._images.skipped

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Give the batches; every epoch is the same."""
        yield from self._images.epoch(0, min(start, len(self._images)))
        for number in range(max(0, start - len(self._images)), len(self) - len(self._images)):
            piece = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield self._texts(self.text_rows[piece], self.text_places[piece])

    def _texts(self, rows: Int64[np.ndarray, " n"], places: Int64[np.ndarray, " n"]) -> Batch:
        source = self.data.source
        texts = [source.row(row).captions[place] for row, place in zip(rows.tolist(), places.tolist(), strict=True)]
        tokens, mask = self.data.tokens(texts)
        states = self.data.features.of_texts(rows, places)
        return Batch(tokens=tokens, token_mask=mask, text_states=states, pair_id=torch.from_numpy(rows))
