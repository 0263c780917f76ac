"""DANN: a classifier whose features shall not tell a judge whether a picture is of the source or the target domain.

The judge learns to tell domains apart; its gradient is reversed on the way to the features, so that these learn to
make that impossible.

Reference:
    Ganin and Lempitsky 2014, arXiv 1409.7495; Ganin et al. 2015, arXiv 1505.07818. The strength of the reversal rises
    as in the paper, but to 0.3, not 1: at 1 training is often worse than without a judge. The paper takes plain
    momentum under a falling rate, diptych's trainer AdamW, under which a judge without dropout often misleads:
    accuracy on the target then falls below that without adaptation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Adapting, Loss
from diptych.encoders.base import ImageEncoder
from diptych.encoders.towers import Count, build_image
from diptych.models.adapting import RampConfig, RampedClassifier, in_source
from diptych.objectives.adversarial import reverse_gradient, tell_apart
from diptych.objectives.classes import name_classes


class Config(RampConfig):
    """What it is made of; tower and classifier are inherited."""

    judge_hidden: Count = Field(default=256, description="width of the judge's two hidden layers")
    judge_dropout: float = Field(default=0.5, ge=0, lt=1, description="inside the judge; without it features run away")
    judge_weight: float = Field(default=1.0, ge=0, description="of the judge's loss beside that of the classes")
    reversal: float = Field(default=0.3, ge=0, description="strength of the reversed gradient in the end")


class DANN(RampedClassifier, Adapting):
    """Cross-entropy of the labelled pictures, and a judge of domains behind a reversed gradient."""

    def __init__(self, image: ImageEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__(image, config, spec)
        width = config.judge_hidden
        layers = [nn.Linear(config.dim, width), nn.Linear(width, width)]
        inner = [part for layer in layers for part in (layer, nn.ReLU(), nn.Dropout(config.judge_dropout))]
        self.judge = nn.Sequential(*inner, nn.Linear(width, 1))
        self.reversal, self.judge_weight = config.reversal, config.judge_weight

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Return nats of the classes plus those of the judge."""
        (features,) = embeddings
        strength = self.ramp(self.reversal)
        named = name_classes(self.logits(features), batch.need("label"))
        told = self.judge(reverse_gradient(features, strength=strength))[:, 0].float()
        judged = self.judge_weight * tell_apart(told, in_source(batch))
        parts = {"classes": named.detach(), "judge": judged.detach()}
        return Loss(named + judged, parts | {"reversal": torch.tensor(strength, device=judged.device)})


def build(config: Config, spec: DataSpec) -> DANN:
    """Build the tower the config names, a classifier of the spec's classes, and the judge."""
    return DANN(build_image(config, spec), config, spec)
