"""Distill: a dual encoder taught by a teacher: by its own slow average, by a larger run, or by frozen words.

With `variant="momentum"` the targets are partly what a moving average of the encoder believes, for captions that fit
several pictures of a batch. With "similarity" a trained run (`teacher=RUN`) shows how near each picture is to each
text and where in its space they lie, and the student, mostly a smaller one, copies that; it takes the teacher's
tokens and picture size, and once trained it needs the teacher no more. With "feature" the joint space is that of the
student's own frozen text tower, and the image tower learns to say where a picture's words are.

Reference:
    Li et al. 2021, arXiv 2107.07651 (ALBEF: momentum; see `models/slow.py` for what differs); Yang et al. 2023, arXiv
    2307.12732 (CLIP-KD: similarities, and vectors, which help it most; here by the cosine, and without a map between
    widths); Hinton et al. 2015, arXiv 1503.02531; Gupta et al. 2015, arXiv 1507.00448 (features across modalities). No
    gradient reaches a teacher. Two captions of one picture are both right, as in `clip`.
"""

from __future__ import annotations

from abc import ABC
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Coupled, Loss
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import DualEncoder
from diptych.encoders.towers import TaughtConfig, build_image, build_text
from diptych.models.slow import Slow, SlowConfig
from diptych.models.teacher import Teacher
from diptych.nn.reader import Reader
from diptych.objectives.contrastive import contrastive
from diptych.objectives.distill import feature_distance, similarity_kl


class Config(SlowConfig, TaughtConfig):
    """What a student is made of; towers, readers and the slow average are inherited."""

    variant: Literal["momentum", "similarity", "feature"] = Field(
        default="momentum", description="taught by its own average, by the run in teacher, or by its frozen text tower"
    )
    vectors_weight: float = Field(
        default=30.0, ge=0, description="similarity: of copying the teacher's vectors too; dim must be the teacher's"
    )
    contrastive_weight: float = Field(default=1.0, ge=0, description="similarity: of the contrastive loss beside it")
    distance: Literal["cosine", "squared"] = Field(default="cosine", description="feature: what is made small")


class Student(DualEncoder, Coupled, ABC):
    """What the variants share: a loss of everybody's embeddings."""

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the variant's loss of a batch."""
        return self.couple(self.embed(batch), batch)


class MomentumStudent(Student, AfterStep):
    """Taught by its own moving average."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config)
        self.slow = Slow(self, config)

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Encode both sides of each pair, and let the average do so."""
        return self.encode_image(batch), self.encode_text(batch), *self.slow.embed(batch)

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Contrast with partly soft targets; in nats."""
        image, text, slow_image, slow_text = embeddings
        scale = self.scale()
        total = self.slow.contrast(image, text, (slow_image, slow_text), scale, batch)
        alpha = total.new_tensor(self.slow.alpha())
        return Loss(total, {"contrastive": total.detach(), "scale": scale.detach(), "alpha": alpha})

    def after_step(self) -> None:
        """Keep the scale within its bound, and move the average."""
        self.bound_scale()
        self.slow.follow(self)


class SimilarityStudent(Student, AfterStep):
    """Taught by another run how near each picture is to each text."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config)
        self.teacher = Teacher(config.teacher)
        self.vectors_weight, self.contrastive_weight = config.vectors_weight, config.contrastive_weight

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b _"], ...]:
        """Encode both sides of each pair, and let the teacher do so."""
        return self.encode_image(batch), self.encode_text(batch), *self.teacher.embed(batch, self)

    def couple(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> Loss:
        """Compare how the two spread each row over its partners, in nats, where they see it, and what is right.

        Raises:
            UserError: when the student's vectors are not as wide as the teacher's that they shall copy.
        """
        image, text, *shown = embeddings
        scale = self.scale()
        total = similarity_kl(image, text, scale, *shown, teacher_scale=self.teacher.scale())
        parts = {"similarity": total.detach(), "scale": scale.detach()}
        if self.vectors_weight > 0:
            _need_width(image.shape[1], shown[0].shape[1])
            apart = (feature_distance(image, shown[0]) + feature_distance(text, shown[1])) / 2
            total, parts["vectors"] = total + self.vectors_weight * apart, apart.detach()
        if self.contrastive_weight > 0:
            own = contrastive(image, text, scale, group=batch.pair_id)
            total, parts["contrastive"] = total + self.contrastive_weight * own, own.detach()
        return Loss(total, parts)

    def after_step(self) -> None:
        """Keep the scale within its bound."""
        self.bound_scale()


class FeatureStudent(Student):
    """Taught by its own frozen text tower where the words of a picture are; texts stay as that tower has them."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config.model_copy(update={"dim": text.dim, "text_read": "summary"}))
        self.read_text = Reader(text.dim, text.dim, head="none", standardise=config.standardise)
        self.log_scale.requires_grad_(False)  # distances have no temperature
        self.distance = config.distance

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Return where the image tower thinks that the words are, and where they are; unit vectors for the cosine."""
        if self.distance == "cosine":
            return self.encode_image(batch), self.encode_text(batch)
        states = batch.text_states
        if states is None:
            states = self.text_tower(batch.need("tokens"), batch.need("token_mask"))
        return self.read_image(self.look(batch)[0]), self.read_text(states)

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Measure how far off the pictures are, as a mean over them."""
        image, text = embeddings
        total = feature_distance(image, text, measure=self.distance)
        near = F.cosine_similarity(image.detach(), text.detach()).mean()
        return Loss(total, {"distance": total.detach(), "cosine": near})


def _need_width(own: int, teachers: int) -> None:
    if own != teachers:
        raise UserError(
            f"vectors_weight copies the teacher's vectors of {teachers} numbers, the student's have {own}: give "
            f"dim={teachers}, or vectors_weight=0 to copy similarities alone"
        )


def build(config: Config, spec: DataSpec) -> Student:
    """Build the towers the config names, and what the variant adds; a teacher is opened when it is first asked.

    Raises:
        UserError: when the variant has no teacher, or one is named that it does not read.
    """
    if (config.variant == "similarity") != (config.teacher != ""):
        given = f"variant={config.variant} with teacher={config.teacher!r}"
        raise UserError(f"{given}: give the folder of a run as teacher for variant=similarity, and for no other")
    image, text = build_image(config, spec), build_text(config, spec)
    if config.variant == "feature" and not text.frozen:
        raise UserError(
            f"variant=feature copies a frozen text tower, but text_encoder={config.text_encoder!r} is trained: give a "
            "pretrained text_encoder, or text_train=frozen"
        )
    if config.variant == "feature":
        return FeatureStudent(image, text, config)
    return (MomentumStudent if config.variant == "momentum" else SimilarityStudent)(image, text, config)
