"""Fine-tuning: a classifier on an image tower that was trained elsewhere, and that is adapted in no other way.

With the labels of the source domains alone it is what every adaptation must beat; with those of the target
(`--set labels=target`) it is what adaptation can hope for. Without domains it is a plain classifier.

Reference:
    Yosinski et al. 2014, arXiv 1411.1792; Kornblith et al. 2018, arXiv 1805.08974. How much of the tower moves is
    `image_train`. Between the tower and the classes lies a layer that is learnt, as in the adapting systems, so that
    they can be compared.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss
from diptych.encoders.towers import build_image
from diptych.models.adapting import ClassConfig, PictureClassifier
from diptych.objectives.classes import name_classes


class Config(ClassConfig):
    """What a fine-tuned classifier is made of, all inherited."""


class FineTune(PictureClassifier):
    """A tower and classes, under cross-entropy."""

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Return the cross-entropy of the labelled pictures in nats."""
        total = name_classes(self.logits(embeddings[0]), batch.need("label"))
        return Loss(total, {"classes": total.detach()})


def build(config: Config, spec: DataSpec) -> FineTune:
    """Build the tower the config names and a classifier of the spec's classes."""
    return FineTune(build_image(config, spec), config, spec)
