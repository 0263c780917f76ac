"""SigLIP: a dual encoder that asks of every picture and every text whether they belong together, each by itself.

No softmax joins the pairs of a batch, so small batches learn well too. A learned bias starts far below zero, because
nearly all pairs of a batch are wrong.

Reference:
    Zhai et al. 2023, arXiv 2303.15343: scale 10 and bias -10 to begin with. As there, the loss is divided by the
    pictures of the batch, not by its pairs. Two captions of one picture are both right here; the paper counts them as
    wrong for each other. Its towers pool by attention; any tower will do here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import CoupledEncoder, DualConfig
from diptych.encoders.towers import build_image, build_text
from diptych.objectives.sigmoid import sigmoid


class Config(DualConfig):
    """What a SigLIP is made of; towers and readers are inherited."""

    scale: float = Field(default=10.0, gt=0, description="what cosines are multiplied with, to begin with")
    scale_max: float = Field(default=1000.0, gt=0, description="a guard only; the paper has no bound")
    bias: float = Field(default=-10.0, description="what is added to them, to begin with")


class SigLIP(CoupledEncoder):
    """Two towers, and the learned scale and bias of the question whether two belong together."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config)
        self.bias = nn.Parameter(torch.tensor(config.bias))

    def compare(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch) -> Loss:
        """Return the sigmoid loss: nats of all questions about the batch, divided by its pictures."""
        scale = self.scale()
        total = sigmoid(image, text, scale, self.bias, group=batch.pair_id)
        return Loss(total, {"sigmoid": total.detach(), "scale": scale.detach(), "bias": self.bias.detach()})


def build(config: Config, spec: DataSpec) -> SigLIP:
    """Build the towers the config names for the data the spec describes."""
    return SigLIP(build_image(config, spec), build_text(config, spec), config)
