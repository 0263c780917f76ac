"""MMD: a classifier whose features are drawn to be distributed alike in the source and in the target domain.

Distributions are compared by their maximum mean discrepancy, under Gaussian kernels of several widths or of one.

Reference:
    Tzeng et al. 2014, arXiv 1412.3474 (DDC: one kernel, one layer); Long et al. 2015, arXiv 1502.02791 (DAN: several
    kernels and layers). Kernels weigh the same and are not optimised. The widths follow the mean distance in each
    batch. The biased estimate is taken, over all pairs rather than in linear time. Its weight rises from 0, as DANN's.
    DAN's layers are those of AlexNet; here the features and, with `match=both`, the probabilities of the classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Adapting, Loss
from diptych.encoders.base import ImageEncoder
from diptych.encoders.towers import build_image
from diptych.models.adapting import RampConfig, RampedClassifier, in_source
from diptych.objectives.classes import name_classes
from diptych.objectives.mmd import FACTORS, mmd


class Config(RampConfig):
    """What it is made of; tower and classifier are inherited."""

    kernels: Literal["several", "one"] = Field(default="several", description="of which widths, around the mean")
    match: Literal["features", "both"] = Field(default="both", description="features, or class probabilities too")
    weight: float = Field(default=4.0, ge=0, description="of the discrepancy in the end")


class MMD(RampedClassifier, Adapting):
    """Cross-entropy of the labelled pictures, and the discrepancy between domains."""

    def __init__(self, image: ImageEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__(image, config, spec)
        self.factors = FACTORS if config.kernels == "several" else (1.0,)
        self.both, self.weight = config.match == "both", config.weight

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Return nats of the classes plus the weighted discrepancy, which has no unit and is at most 2 for a layer."""
        (features,) = embeddings
        logits, source = self.logits(features), in_source(batch)
        named = name_classes(logits, batch.need("label"))
        apart = mmd(features[source], features[~source], factors=self.factors)
        if self.both:
            chances = logits.softmax(1)
            apart = apart + mmd(chances[source], chances[~source], factors=self.factors)
        weight = self.ramp(self.weight)
        parts = {"classes": named.detach(), "mmd": apart.detach()}
        return Loss(named + weight * apart, parts | {"weight": torch.tensor(weight, device=apart.device)})


def build(config: Config, spec: DataSpec) -> MMD:
    """Build the tower the config names and a classifier of the spec's classes."""
    return MMD(build_image(config, spec), config, spec)
