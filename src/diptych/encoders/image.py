"""Built-in image towers, sized at will: CLIP's vision transformer and CLIP's residual network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError, unknown
from diptych.encoders.base import CLIP_MEAN, CLIP_STD, ImageEncoder
from diptych.nn.cnn import ModifiedResNet
from diptych.nn.patches import PatchEmbed
from diptych.nn.pool import MeanAttentionPool
from diptych.nn.transformer import Transformer


class ViT(ImageEncoder):
    """A vision transformer with a LayerNorm before and after its blocks. ViT-B/32 is 224, 32, 768, 12, 12.

    Args:
        image_size: side of a picture, in pixels.
        patch: side of a patch, in pixels.
        dim: width of a token.
        layers: blocks.
        heads: attention heads; CLIP has dim / 64.
        channels: of a picture.
        pool: "class" (a learned token reads the picture, as in CLIP) or "mean" (of the patches; no class token).
        activation: "quick_gelu" for OpenAI's weights, or "gelu".
        dropout: chance in [0, 1).
        mean: of each channel of the pictures, in [0, 1].
        std: of each channel of the pictures.

    Raises:
        UserError: when the patch does not divide the picture, or for another pool.

    Reference:
        Dosovitskiy et al. 2020, arXiv 2010.11929, as changed by Radford et al. 2021, arXiv 2103.00020. The LayerNorm
        after the blocks is given to the patches too; the projection into the joint space belongs to the model.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        patch: int = 8,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        channels: int = 3,
        pool: str = "class",
        activation: str = "gelu",
        dropout: float = 0.0,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__(dim, image_size=image_size, mean=mean[:channels], std=std[:channels])
        if image_size % patch != 0:
            raise UserError(f"patch={patch} does not divide image_size={image_size}: choose a divisor")
        if pool not in ("class", "mean"):
            raise unknown("image pool", pool, ("class", "mean"))
        self.patch, self.heads, self.activation = patch, heads, activation
        self.patches = PatchEmbed(channels, dim, patch)
        scale = dim**-0.5
        places = (image_size // patch) ** 2
        self.class_token = nn.Parameter(scale * torch.randn(dim)) if pool == "class" else None
        self.positions = nn.Parameter(scale * torch.randn(places + (pool == "class"), dim))
        self.norm_before = nn.LayerNorm(dim)
        self.transformer = Transformer(dim, heads, layers, activation=activation, dropout=dropout)
        self.norm_after = nn.LayerNorm(dim)

    def recipe(self) -> str:
        """Return the kind, sizes and pixel statistics."""
        return f"vit {self.image_size} {self.patch} {self.heads} {self.activation} {self.mean} {self.std}"

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels."""
        x = self.patches(pixels)
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        x = self.norm_after(self.transformer(self.norm_before(x + self.positions)))
        if self.class_token is None:
            return _all_real(x, x.mean(1))
        return _all_real(x[:, 1:], x[:, 0])


class ResNetTower(ImageEncoder):
    """CLIP's modified ResNet with attention pooling. RN50 is 224, 64, (3, 4, 6, 3), which gives 2048 wide tokens.

    Args:
        image_size: side of a picture, in pixels; a multiple of 4 * 2^(stages - 1).
        width: channels of the stem; the tokens are 4 * 2^(stages - 1) times as wide.
        blocks: how many blocks each stage has.
        heads: attention heads of the pooling; width / 2 (64 channels each at four stages, as in CLIP) when None.
        channels: of a picture.
        mean: of each channel of the pictures, in [0, 1].
        std: of each channel of the pictures.

    Raises:
        UserError: when the network shrinks by more than the picture allows.

    Reference:
        Radford et al. 2021, arXiv 2103.00020.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        width: int = 16,
        blocks: Sequence[int] = (1, 1, 1),
        heads: int | None = None,
        channels: int = 3,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        trunk = ModifiedResNet(channels, width=width, blocks=blocks)
        super().__init__(trunk.dim, image_size=image_size, mean=mean[:channels], std=std[:channels])
        if image_size % trunk.shrink != 0:
            raise UserError(
                f"a resnet of {len(blocks)} stages shrinks pictures {trunk.shrink} times: "
                f"image_size={image_size} must be a multiple of that"
            )
        self.trunk = trunk
        heads = max(1, trunk.dim // 64) if heads is None else heads
        self.pool = MeanAttentionPool(trunk.dim, heads, places=(image_size // trunk.shrink) ** 2)

    def recipe(self) -> str:
        """Return the kind, sizes and pixel statistics."""
        return f"resnet {self.image_size} {self.pool.attention.heads} {self.mean} {self.std}"

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels."""
        grid = self.trunk(pixels).flatten(2).transpose(1, 2)
        return _all_real(grid, self.pool(grid))


def _all_real(tokens: Float[Tensor, "b n d"], summary: Float[Tensor, "b d"]) -> States:
    """Make states without padding."""
    return States(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), summary)
