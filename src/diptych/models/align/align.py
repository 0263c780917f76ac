"""ALIGN: a dual encoder for pairs taken as they are found, many of them wrong; the targets are smoothed.

A share of every target is spread over the whole batch, so that a pair that does not belong together costs less when
the model does not believe it.

Reference:
    Jia et al. 2021, arXiv 2102.05918: a convolutional network with global pooling and a text transformer read at its
    first token, a learned temperature, label smoothing 0.1. The paper's EfficientNet-L2, BERT-Large and 1.8 billion
    pairs are not here: the default image tower is a small ResNet with CLIP's attention pooling, the text tower the
    built-in one. The paper tells no bound of the scale; CLIP's is kept. Two captions of one picture are both right.
"""

from __future__ import annotations

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import CoupledEncoder, DualConfig
from diptych.encoders.towers import build_image, build_text
from diptych.objectives.contrastive import contrastive


class Config(DualConfig):
    """What an ALIGN is made of; towers and readers are inherited."""

    image_encoder: str = "resnet"
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of a target spread over the whole batch")


class ALIGN(CoupledEncoder):
    """Two towers under the contrastive loss with smoothed targets."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config)
        self.smoothing = config.smoothing

    def compare(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch) -> Loss:
        """Return the symmetric cross-entropy with smoothed targets, in nats."""
        scale = self.scale()
        total = contrastive(image, text, scale, group=batch.pair_id, smoothing=self.smoothing)
        return Loss(total, {"contrastive": total.detach(), "scale": scale.detach()})


def build(config: Config, spec: DataSpec) -> ALIGN:
    """Build the towers the config names for the data the spec describes."""
    return ALIGN(build_image(config, spec), build_text(config, spec), config)
