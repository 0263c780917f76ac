"""Pictures: learn from pictures alone, judged by the loss on pictures that were not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field

from diptych.core import runtime
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.images import stack
from diptych.data.loader import Example, Loader
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Towered
from diptych.encoders.towers import TowerConfig, image_size_for
from diptych.tasks.data import Judge, TaskData, spec_for
from diptych.tasks.held_out import MONITOR, held_out


class Settings(Config):
    """How pictures are read from the data."""

    batch_size: int = Field(default=256, gt=0, description="pictures in a batch, of all processes together")
    augment: Literal["none", "crop"] = Field(default="none", description="crop training pictures at random")
    workers: int = Field(default=2, ge=0, description="threads that read pictures; 0: none beside the main one")


@dataclass(frozen=True, slots=True)
class PictureData(TaskData):
    """A source whose captions are not read.

    Args:
        source: pictures.
        tokenizer: of no use here; every run folder has one.
        spec: facts the model was built for.
        settings: batch size and the like.
        crop: how a picture becomes square.
        seed: of the order.
    """

    source: Source
    tokenizer: Tokenizer
    spec: DataSpec
    settings: Settings
    crop: str = "squash"
    seed: int = 0

    def training(self) -> Loader:
        """Return shuffled batches of pictures.

        Raises:
            UserError: when the batch is larger than the data or not a multiple of the processes.
        """
        world, batch = runtime.world(), self.settings.batch_size
        if batch % world:
            fits = max(1, batch // world) * world
            raise UserError(f"batch_size {batch} is not a multiple of {world} processes; use {fits}")
        return Loader(
            self.source,
            self.source.rows("train"),
            collate,
            batch_size=batch // world,
            size=self.spec.image_size,
            seed=self.seed,
            shuffle=True,
            workers=self.settings.workers,
            rank=runtime.rank(),
            world=world,
            crop="random" if self.settings.augment == "crop" else self.crop,
        )

    def judged(self, split: str, model: Model) -> Loader | None:
        """Return every picture of a split once; None when the split is empty."""
        rows = self.source.rows(split)
        return self._still(rows) if len(rows) else None

    def judge(self, model: Model) -> Judge:
        """Judge by the loss."""
        return Judge((held_out,), MONITOR)

    def _still(self, rows: Int64[np.ndarray, " n"]) -> Loader:
        return Loader(
            self.source,
            rows,
            collate,
            batch_size=self.settings.batch_size,
            size=self.spec.image_size,
            seed=self.seed,
            workers=self.settings.workers,
            crop=self.crop,
        )


def collate(examples: list[Example]) -> Batch:
    """Stack pictures."""
    images = [example.image for example in examples if example.image is not None]
    return Batch(image=stack(images), pair_id=torch.tensor([example.index for example in examples]))


def facts(source: Source, config: Config, settings: Settings) -> tuple[Tokenizer, DataSpec]:
    """Return the least tokenizer there is, since no text is read, and the size of the pictures.

    Raises:
        UserError: when the system takes no image tower.
    """
    if not isinstance(config, TowerConfig):
        raise UserError("this system has no image tower, so it does not learn from pictures")
    tokenizer = Tokenizer.train((), vocabulary=512)
    return tokenizer, spec_for(tokenizer, image_size=image_size_for(config))


def join(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    settings: Settings,
    *,
    split: str = "all",
    seed: int = 0,
    device: str = "auto",
) -> PictureData:
    """Join a source and a model; nothing is computed beforehand."""
    crop = model.image_tower.crop if isinstance(model, Towered) else "squash"
    return PictureData(source, tokenizer, spec, settings, crop=crop, seed=seed)
