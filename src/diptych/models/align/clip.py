"""CLIP: an image tower and a text tower meet in one space, trained so that a picture finds its own words.

The paper's towers are a ViT or ResNet and a causal text transformer; any pair will do (see `encoders/dual.py`).

Reference:
    Radford et al. 2021, arXiv 2103.00020. The loss is exact at every batch size and knows that two captions of one
    picture are both right; the paper counts them as wrong for each other. The clamp of the scale to 100 is applied to
    the parameter after each step.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss
from diptych.encoders.dual import CoupledEncoder, DualConfig
from diptych.encoders.towers import build_image, build_text
from diptych.objectives.contrastive import contrastive


class Config(DualConfig):
    """What a CLIP is made of: towers, readers and a scale, all inherited."""


class CLIP(CoupledEncoder):
    """Two towers under the symmetric contrastive loss, in nats."""

    def compare(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch) -> Loss:
        """Return the symmetric contrastive loss in nats."""
        scale = self.scale()
        total = contrastive(image, text, scale, group=batch.pair_id)
        return Loss(total, {"contrastive": total.detach(), "scale": scale.detach()})


def build(config: Config, spec: DataSpec) -> CLIP:
    """Build the towers the config names for the data the spec describes."""
    return CLIP(build_image(config, spec), build_text(config, spec), config)
