"""What the systems that carry classes over to another domain share: a tower, features that are learnt, and classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec, States
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Classifier, Coupled, Fitted, Loss, Model
from diptych.encoders.base import ImageEncoder
from diptych.encoders.offers import Reads, Sighted
from diptych.encoders.towers import Count, ImageTowerConfig
from diptych.nn.linear import Linear
from diptych.nn.reader import Reader
from diptych.objectives.adversarial import reversal_strength


class ClassConfig(ImageTowerConfig):
    """What a classifier of pictures is made of; the image tower's fields are inherited."""

    learns: ClassVar[str] = "classes"

    dim: Count = Field(default=256, description="width of the features that classes are read from")
    head: Literal["linear", "mlp"] = Field(default="linear", description="from the tower's summary to the features")
    hidden: Count = Field(default=1024, description="width inside an mlp head")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of the summary and of the features")
    standardise: bool = Field(default=True, description="bring features of a frozen tower to one scale first")


class RampConfig(ClassConfig):
    """A classifier to which another domain matters more and more."""

    ramp_steps: Count = Field(default=1000, description="steps over which the other domain comes to count in full")


class PictureClassifier(Model, Fitted, Sighted, Classifier, Coupled, ABC):
    """An image tower, a head on its summary whose rectified outputs are the features, and a linear map to classes.

    Args:
        image: the tower.
        config: how it is read.
        spec: with the classes.

    Raises:
        UserError: when there are fewer than two classes.
    """

    def __init__(self, image: ImageEncoder, config: ClassConfig, spec: DataSpec) -> None:
        super().__init__()
        if len(spec.classes) < 2:
            raise UserError(f"there are {len(spec.classes)} classes, but naming them needs two: look at the labels")
        self.image_tower = image
        self.read = Reader(
            image.dim,
            config.dim,
            head=config.head,
            hidden=config.hidden,
            dropout=config.dropout,
            standardise=config.standardise and image.frozen,
        )
        self.drop = nn.Dropout(config.dropout)
        self.name = Linear(config.dim, len(spec.classes))

    def reads(self) -> Reads:
        """Say what is read of the tower's outputs: the summary."""
        return Reads()

    def features(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return the features, none below 0."""
        states: States | None = batch.image_states
        return F.relu(self.read(self.image_tower(batch.need("image")) if states is None else states))

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Return a logit for each class."""
        found: Tensor = self.name(self.drop(features))
        return found.float()

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Return the features of each picture."""
        return (self.features(batch),)

    @abstractmethod
    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Judge the features of a whole batch; this is what makes the system."""

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the system's loss of a batch, in nats where nothing else is said."""
        return self.couple(self.embed(batch), batch)

    def fit(self, batches: Iterable[Batch]) -> None:
        """Take the statistics of frozen features; nothing is looked at when none is standardised."""
        for batch in batches if self.read.standardised else ():
            if batch.image_states is not None:
                self.read.look(batch.image_states)
        self.read.settle()


class RampedClassifier(PictureClassifier, AfterStep, ABC):
    """A classifier that counts its steps, for what has to come in slowly."""

    steps: Tensor

    def __init__(self, image: ImageEncoder, config: RampConfig, spec: DataSpec) -> None:
        super().__init__(image, config, spec)
        self.ramp_steps = config.ramp_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def ramp(self, top: float) -> float:
        """Return what has risen from 0 to `top` by now, as in DANN: 99 % of it after half of the ramp."""
        return reversal_strength(min(1.0, int(self.steps) / self.ramp_steps), top=top)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step."""
        self.steps += 1


def in_source(batch: Batch) -> Bool[Tensor, " b"]:
    """Say which pictures are of the source domains, 0 in `batch.domain`."""
    domain: Tensor = batch.need("domain")
    return domain == 0


@torch.inference_mode()
def name(model: Classifier, spec: DataSpec, images: UInt8[Tensor, "b c h w"]) -> list[list[tuple[str, float]]]:
    """Name pictures with the classes that a model has learnt: for each picture all of them, the likeliest first."""
    return ranked(model.logits(model.features(Batch(image=images))).softmax(1), spec.classes)


def ranked(chances: Float[Tensor, "b c"], labels: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Put names beside the chances of each row, the likeliest first."""
    order = chances.argsort(dim=1, descending=True, stable=True).tolist()
    return [
        [(labels[place], float(row[place])) for place in places] for row, places in zip(chances, order, strict=True)
    ]
