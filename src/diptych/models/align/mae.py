"""MAE: an image tower learns from pictures alone, by painting the three quarters of their patches it did not see.

Hidden patches are really dropped, so that the encoder costs a quarter; a narrow decoder predicts them. Captions are
not needed: of the inherited settings those of the text tower are idle. There is no space for texts, hence no retrieval;
what is watched in training is the loss on the dev split, where the same patches are hidden each time.

Reference:
    He et al. 2021, arXiv 2111.06377. The target is the normalised pixels, each patch brought to mean 0 and variance 1
    (unbiased, as in the released code). Deviations of the encoder: see `encoders/masked.py`.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss, Model
from diptych.encoders.masked import (
    MaskedViT,
    PixelDecoder,
    Reconstruction,
    masked_vit,
    patch_noise,
    patches_kept,
    reconstruct,
)
from diptych.encoders.towers import TowerConfig
from diptych.objectives.masked_pixels import masked_pixels


class Config(TowerConfig):
    """What an MAE is made of; the sizes of the encoder are the inherited ones of a "vit"."""

    learns: ClassVar[str] = "pictures"

    mask: float = Field(default=0.75, gt=0, lt=1, description="share of the patches that is hidden")
    decoder_dim: int = Field(default=64, gt=0, description="width of the decoder")
    decoder_layers: int = Field(default=2, ge=1, description="blocks of the decoder")
    decoder_heads: int = Field(default=4, gt=0, description="attention heads of the decoder")
    normalise_patches: bool = Field(default=True, description="targets of mean 0 and variance 1 in each patch")


class MAE(Model):
    """An encoder that reads what is visible, and a decoder that predicts the rest."""

    def __init__(self, tower: MaskedViT, config: Config) -> None:
        super().__init__()
        self.image_tower = tower
        self.decoder = PixelDecoder(
            tower, dim=config.decoder_dim, layers=config.decoder_layers, heads=config.decoder_heads
        )
        self.keep = patches_kept(tower.side**2, config.mask)
        self.normalise_patches = config.normalise_patches

    def reconstruct(
        self, image: Shaped[Tensor, "b c h w"], noise: Float[Tensor, "b p"] | None = None
    ) -> Reconstruction:
        """Hide patches and predict them.

        Args:
            image: uint8 in [0, 255] or float in [0, 1].
            noise: decides what is hidden: all but the smallest; drawn in training and fixed in evaluation when None.
        """
        if noise is None:
            noise = patch_noise(len(image), self.image_tower.side**2, training=self.training, device=image.device)
        return reconstruct(self.image_tower, self.decoder, image, noise, keep=self.keep)

    def error(self, made: Reconstruction) -> Float[Tensor, ""]:
        """Return the mean squared error on hidden patches."""
        return masked_pixels(made.predicted, made.patches, made.hidden, normalise=self.normalise_patches)

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the mean squared error on hidden patches; near 1 for predicting each patch's mean when normalised."""
        total = self.error(self.reconstruct(batch.need("image")))
        return Loss(total, {"reconstruction": total.detach()})


def build(config: Config, spec: DataSpec) -> MAE:
    """Build encoder and decoder for pictures of the size the spec describes.

    Raises:
        UserError: for an image tower whose patches cannot be left out, or when nothing would be hidden.
    """
    return MAE(masked_vit(config, spec), config)
