"""Adversarial alignment: a judge tries to tell vectors of pictures from those of texts, the encoders to prevent it.

The judge alone would match distributions and swap classes. So right pairs are pulled together by hinges on their
distance, and where the data has classes one classifier must name them from either side.

Reference:
    Wang et al. 2017, ACM MM, "Adversarial Cross-Modal Retrieval" (ACMR). Gradients are reversed as in Ganin et al.
    2015, arXiv 1505.07818, with a strength that rises to 0.3, not 1, over `reversal_steps`: at 1 training is often
    worse than without a judge. ACMR maps ready features by tanh layers; here towers are trained or frozen at will,
    read by an MLP into vectors of unit length, and right is one's own pair, not every row of the same class, though a
    row of the same class is never wrong. The regulariser is the trainer's weight decay.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import AfterStep, Coupled, Loss
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import DualConfig, DualEncoder
from diptych.encoders.towers import build_image, build_text
from diptych.objectives.adversarial import reversal_strength, reverse_gradient, tell_apart
from diptych.objectives.classes import name_classes
from diptych.objectives.triplet import triplet


class Config(DualConfig):
    """What adversarial alignment is made of; towers and readers are inherited."""

    head: Literal["linear", "mlp"] = Field(default="mlp", description="from a tower's summary into the joint space")
    margin: float = Field(default=0.2, gt=0, description="by how much nearer the right partner must be")
    pair_weight: float = Field(default=1.0, ge=0, description="of the hinges on distances")
    class_weight: float = Field(default=1.0, ge=0, description="of naming the class, where the data has classes")
    judge_hidden: int = Field(default=64, gt=0, description="width of the judge's two hidden layers")
    reversal: float = Field(default=0.3, ge=0, description="strength of the reversed gradient in the end")
    reversal_steps: int = Field(default=1000, gt=0, description="steps over which it rises from 0")


class Adversarial(DualEncoder, Coupled, AfterStep):
    """Two towers, a judge of modalities and, with classes, a classifier of both sides."""

    steps: Tensor

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config, *, classes: int = 0) -> None:
        super().__init__(image, text, config)
        self.config = config
        self.log_scale.requires_grad_(False)  # hinges have no temperature
        width = config.judge_hidden
        self.judge = nn.Sequential(
            nn.Linear(config.dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )
        self.classify = nn.Linear(config.dim, classes) if classes > 0 else None
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def strength(self) -> float:
        """Return the strength of the reversed gradient at this step."""
        return reversal_strength(min(1.0, int(self.steps) / self.config.reversal_steps), top=self.config.reversal)

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Encode both sides of each pair."""
        return self.encode_image(batch), self.encode_text(batch)

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Compare every picture with every text of the whole batch, and let the judge look at each."""
        image, text = embeddings
        label = None if self.classify is None else batch.need("label")
        near = self.config.pair_weight * triplet(
            image,
            text,
            margin=self.config.margin,
            group=_partners(batch.pair_id, label),
            similarity="euclidean",
        )
        strength = self.strength()
        both = torch.cat([image, text])
        pictures = torch.arange(len(both), device=both.device) < len(image)
        judged = tell_apart(self.judge(reverse_gradient(both, strength=strength))[:, 0].float(), pictures)
        parts = {"pairs": near.detach(), "judge": judged.detach(), "reversal": torch.tensor(strength)}
        total = near + judged
        if self.classify is not None and label is not None:
            named = self.config.class_weight * name_classes(self.classify(both), label.repeat(2))
            total, parts["classes"] = total + named, named.detach()
        return Loss(total, {name: part.to(total.device) for name, part in parts.items()})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return hinges a row (of distance), plus the judge's error and that of the classes in nats."""
        return self.couple(self.embed(batch), batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step."""
        self.steps += 1


def _partners(picture: Int[Tensor, " b"] | None, label: Int[Tensor, " b"] | None) -> Int[Tensor, " b"] | None:
    """Say whose texts are right for whom: those of the class, or of the picture where a row has no class."""
    if label is None or picture is None:
        return picture if label is None else label
    return torch.where(label >= 0, label, -1 - picture)


def build(config: Config, spec: DataSpec) -> Adversarial:
    """Build the towers the config names, the judge, and with classes in the spec a classifier."""
    return Adversarial(build_image(config, spec), build_text(config, spec), config, classes=len(spec.classes))
