"""Dual encoder: what all systems share in which an image tower and a text tower meet in one space of unit vectors.

Any pair of towers will do: built-in ones trained from scratch, or pretrained ones that are frozen, partly frozen,
adapted (LoRA) or trained. From frozen towers the joint space can read the whole grid and every word
(`image_read="cells"`), standardised, and each picture together with its mirror image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, States
from diptych.core.model import AfterStep, Coupled, Fitted, Loss, Model, PairEncoder
from diptych.encoders.base import ImageEncoder, TextEncoder, Tower
from diptych.encoders.offers import Reads, Towered
from diptych.encoders.towers import TowerConfig
from diptych.nn.reader import Reader

Read = Literal["summary", "cells"]


class DualConfig(TowerConfig):
    """What a dual encoder is made of; the towers' fields are inherited."""

    dim: int = Field(default=256, gt=0, description="width of the joint space")
    head: Literal["linear", "mlp"] = Field(default="linear", description="from a tower's summary into the joint space")
    hidden: int = Field(default=1024, gt=0, description="width inside an mlp head")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of what the heads read of a summary")
    image_read: Read = Field(default="summary", description="the image tower's summary, or its cells as well")
    text_read: Read = Field(default="summary", description="the text tower's summary, or its words as well")
    queries: int = Field(default=8, gt=0, description="learned queries to cells or words")
    cell_dropout: float = Field(default=0.0, ge=0, lt=1, description="of what queries see and of what they answer")
    standardise: bool = Field(default=False, description="bring features of frozen towers to one scale first")
    mirror: bool = Field(default=False, description="read mirrored pictures too; not where left and right matter")
    scale: float = Field(default=1 / 0.07, gt=0, description="inverse temperature to begin with")
    scale_max: float = Field(default=100.0, gt=0, description="the learned scale never passes this")


class DualEncoder(Model, Fitted, PairEncoder, Towered, ABC):
    """Two towers, a reader for each, and the learned scale, stored as its logarithm; a system adds its loss.

    Args:
        image: the image tower.
        text: the text tower.
        config: how they are read.
    """

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: DualConfig) -> None:
        super().__init__()
        self.image_tower, self.text_tower = image, text
        self.read_image = _reader(image, config, cells=config.image_read == "cells")
        self.read_text = _reader(text, config, cells=config.text_read == "cells")
        self.mirror = config.mirror
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.log_scale_max = math.log(config.scale_max)

    def encode_image(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors for pictures, or for what a frozen tower made of them.

        With `mirror`, training looks at a picture or at its mirror image, evaluation at both.
        """
        states, mirrored = self.look(batch)
        vectors: Tensor = F.normalize(self.read_image(states), dim=1)
        if mirrored is None or self.training:
            return vectors
        return F.normalize(vectors + F.normalize(self.read_image(mirrored), dim=1), dim=1)

    def look(self, batch: Batch) -> tuple[States, States | None]:
        """Return what the image tower makes of pictures, and of their mirror images where both are to be read."""
        states, mirrored = batch.image_states, batch.mirrored_states
        if states is None:
            image = batch.need("image")
            if self.mirror and self.training:
                turned = torch.rand(len(image), device=image.device) < 0.5
                image = torch.where(turned[:, None, None, None], image.flip(-1), image)
            states = self.image_tower(image)
            mirrored = self.image_tower(image.flip(-1)) if self.mirror and not self.training else None
        return states, mirrored

    def encode_text(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors for texts, or for what a frozen tower made of them."""
        states = batch.text_states
        if states is None:
            states = self.text_tower(batch.need("tokens"), batch.need("token_mask"))
        return F.normalize(self.read_text(states), dim=1)

    def scale(self) -> Float[Tensor, ""]:
        """Return the learned scale."""
        return self.log_scale.exp()

    @torch.no_grad()
    def bound_scale(self) -> None:
        """Keep the scale within its bound, the parameter itself; to be called after each step."""
        self.log_scale.clamp_(max=self.log_scale_max)

    def reads(self) -> Reads:
        """Say what the joint space reads of the towers' outputs."""
        return Reads(self.read_image.cells is not None, self.read_text.cells is not None, self.mirror)

    def fit(self, batches: Iterable[Batch]) -> None:
        """Take the statistics of frozen features; nothing is looked at when no feature is standardised."""
        readers = [reader for reader in (self.read_image, self.read_text) if reader.standardised]
        for batch in batches if readers else ():
            if batch.image_states is not None:
                self.read_image.look(batch.image_states)
            if batch.text_states is not None:
                self.read_text.look(batch.text_states)
        for reader in readers:
            reader.settle()


class CoupledEncoder(DualEncoder, Coupled, AfterStep, ABC):
    """A dual encoder whose loss compares every picture of the batch with every text, and nothing else."""

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Encode both sides of each pair."""
        return self.encode_image(batch), self.encode_text(batch)

    @abstractmethod
    def compare(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch) -> Loss:
        """Compare every picture with every text of the whole batch; this is what makes the system."""

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Compare the embeddings of the whole batch."""
        image, text = embeddings
        return self.compare(image, text, batch)

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the system's loss of a batch."""
        return self.couple(self.embed(batch), batch)

    def after_step(self) -> None:
        """Keep the scale within its bound."""
        self.bound_scale()


def _reader(tower: Tower, config: DualConfig, *, cells: bool) -> Reader:
    return Reader(
        tower.dim,
        config.dim,
        cells=tower.token_dim if cells else None,
        queries=config.queries,
        head=config.head,
        hidden=config.hidden,
        dropout=config.dropout,
        cell_dropout=config.cell_dropout,
        standardise=config.standardise and tower.frozen,
    )
