"""Mapper: features of a frozen image tower and a frozen text tower, each mapped into a common space.

Only the maps are learnt, so that features are computed once and a training takes minutes. The maps are linear or a
small MLP (`head`), the loss a triplet loss over all wrong partners, over the hardest alone, one of pairs, or
contrastive.

Reference:
    Kiros et al. 2014, arXiv 1411.2539 (sum of hinges); Faghri et al. 2017, arXiv 1707.05612 (VSE++, hardest wrong
    partner); Hadsell et al. 2006, CVPR (pairs; here every picture of a batch makes one with every text). VSE++ also
    trains the image tower and learns word vectors from scratch; here BERT and a ResNet-50 stay frozen. Hinges are
    summed over partners and averaged, not summed, over the batch. The hardest partner alone tends to collapse from the
    start, so the loss moves to it over `hardest_after` steps. Features are standardised and the mapped vectors have
    unit length, so cosine and Euclidean distance rank alike, but weigh hinges differently.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import AfterStep, Coupled, Loss
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import DualConfig, DualEncoder
from diptych.encoders.towers import build_image, build_text
from diptych.objectives.contrastive import contrastive
from diptych.objectives.pairs import all_pairs
from diptych.objectives.triplet import triplet


class Config(DualConfig):
    """What a mapper is made of; towers and readers are inherited, the towers frozen."""

    image_encoder: str = "microsoft/resnet-50"
    image_train: str = "frozen"
    text_encoder: str = "bert-base-uncased"
    text_train: str = "frozen"
    standardise: bool = Field(default=True, description="bring features of frozen towers to one scale first")
    objective: Literal["triplet", "hardest", "pair", "contrastive"] = Field(
        default="triplet", description="all wrong partners, in time only the hardest, pairs, or a softmax over all"
    )
    similarity: Literal["cosine", "euclidean"] = Field(default="cosine", description="what hinges compare")
    margin: float = Field(default=0.2, gt=0, description="by how much the right partner must win a hinge")
    pair_margin: float = Field(default=1.0, gt=0, description="pair: the distance at which wrong pairs may rest")
    hardest_after: int = Field(default=300, ge=0, description="steps until only the hardest wrong partner counts")


class Mapper(DualEncoder, Coupled, AfterStep):
    """Two towers that stay as they are, and a map for each; the steps are counted for the way to the hardest."""

    steps: Tensor

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config)
        self.objective, self.margin, self.hardest_after = config.objective, config.margin, config.hardest_after
        self.pair_margin = config.pair_margin
        self.similarity = "dot" if config.similarity == "cosine" else "euclidean"
        self.log_scale.requires_grad_(config.objective == "contrastive")  # hinges have no temperature
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def hardest(self) -> float:
        """Return the share of the loss that looks at the hardest wrong partner alone, in [0, 1]."""
        if self.objective != "hardest":
            return 0.0
        return min(1.0, int(self.steps) / self.hardest_after) if self.hardest_after > 0 else 1.0

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Map both sides of each pair."""
        return self.encode_image(batch), self.encode_text(batch)

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Compare every picture with every text of the whole batch.

        A contrastive loss of squared Euclidean distances is that of cosines between unit vectors: 2 - 2 cosine.
        """
        image, text = embeddings
        if self.objective == "contrastive":
            scale = self.scale()
            total = contrastive(image, text, scale, group=batch.pair_id)
            return Loss(total, {"contrastive": total.detach(), "scale": scale.detach()})
        if self.objective == "pair":
            total = all_pairs(image, text, margin=self.pair_margin, group=batch.pair_id)
            return Loss(total, {"pair": total.detach()})
        hardest = self.hardest()
        total = triplet(
            image, text, margin=self.margin, hardest=hardest, group=batch.pair_id, similarity=self.similarity
        )
        return Loss(total, {"triplet": total.detach(), "hardest": torch.tensor(hardest, device=total.device)})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the hinges a row in units of the similarity, squared distances a row, or nats of the contrast."""
        return self.couple(self.embed(batch), batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, and keep the scale within its bound."""
        self.steps += 1
        self.bound_scale()


def build(config: Config, spec: DataSpec) -> Mapper:
    """Build the towers the config names for the data the spec describes."""
    return Mapper(build_image(config, spec), build_text(config, spec), config)
