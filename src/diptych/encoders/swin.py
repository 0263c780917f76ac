"""A built-in hierarchical image tower: attention in shifted windows on a grid that shrinks from stage to stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError, unknown
from diptych.encoders.base import CLIP_MEAN, CLIP_STD, ImageEncoder
from diptych.nn.windows import WindowAttention, WindowBlock

STEMS = ("convolution", "patch")


class ConvEmbed(nn.Module):
    """A strided convolution whose kernels overlap, then a LayerNorm: pixels, or a grid, to a smaller grid.

    Args:
        inside: channels that come in.
        outside: channels that go out.
        size: side of the kernel.
        stride: by how much the grid shrinks.
        padding: cells of zeros around the grid.
    """

    def __init__(self, inside: int, outside: int, *, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(inside, outside, size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(outside)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b i j d"]:
        """Shrink a grid."""
        y: Tensor = self.norm(self.projection(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return y


class PatchMerge(nn.Module):
    """Four neighbours become one cell of twice the width, as in the plain Swin; an odd side is padded with zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b i j d"]:
        """Shrink a grid."""
        x = nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        y: Tensor = self.reduction(self.norm(torch.cat(four, dim=-1)))
        return y


class Swin(ImageEncoder):
    """A Swin transformer; the summary is the mean of the last grid's cells. Swin-T is 224, 4, 768, (2, 2, 6, 2), 24, 7.

    Args:
        image_size: side of a picture, in pixels.
        patch: side of a patch, the stride of the stem, in pixels.
        dim: width of a cell of the last stage; each stage before has half the width on four times the cells.
        depths: blocks of each stage; every second block has shifted windows.
        heads: attention heads of the last stage; each stage before has half as many, but one at least.
        window: side of a window in cells; a grid that is not larger has full attention.
        stem: "convolution" (stem and merging by overlapping convolutions, as in CoSwin) or "patch" (the plain Swin).
        grid: the stage whose cells are the tokens, from 1, or from -1 backwards; the last when None.
        channels: of a picture.
        activation: "gelu", "quick_gelu" or "relu".
        dropout: chance in [0, 1).
        mean: of each channel of the pictures, in [0, 1].
        std: of each channel of the pictures.

    Raises:
        UserError: when patch, width or heads do not fit, or for another stem or stage.

    Reference:
        Liu et al. 2021, arXiv 2103.14030 (Swin); the convolutions of Wu et al. 2021, arXiv 2103.15808 (CvT), as in
        Yuan et al. 2021, arXiv 2111.11432 (Florence's CoSwin). No layers are dropped at random in training.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        patch: int = 8,
        dim: int = 128,
        depths: Sequence[int] = (2, 2),
        heads: int = 4,
        window: int = 4,
        stem: str = "convolution",
        grid: int | None = None,
        channels: int = 3,
        activation: str = "gelu",
        dropout: float = 0.0,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__(dim, image_size=image_size, mean=mean[:channels], std=std[:channels])
        widths = [dim // 2**back for back in reversed(range(len(depths)))]
        _require(image_size, patch, dim, widths, stem)
        self.stage = _stage(grid, len(depths))
        self.token_dim = widths[self.stage - 1]
        self.patch, self.window, self.kind, self.activation = patch, window, stem, activation
        self.depths, self.heads = tuple(depths), heads
        overlap = patch - 1 if stem == "convolution" else 0
        self.stem = ConvEmbed(channels, widths[0], size=patch + overlap, stride=patch, padding=(overlap + 1) // 2)
        blocks, side = [], image_size // patch
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            side = side if stage == 0 else -(-side // 2)
            for number in range(depth):
                attention = WindowAttention(
                    width,
                    max(1, heads // 2 ** (len(depths) - 1 - stage)),
                    side=side,
                    window=window,
                    shift=number % 2 == 1,
                    dropout=dropout,
                )
                merge = _merge(stem, width // 2) if number == 0 and stage > 0 else None
                blocks.append(WindowBlock(attention, merge=merge, activation=activation, dropout=dropout))
                blocks[-1].reset(out_scale=(2 * sum(depths)) ** -0.5)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)

    def recipe(self) -> str:
        """Return the kind, sizes and pixel statistics."""
        shape = f"{self.patch} {self.depths} {self.heads} {self.window} {self.kind} {self.stage} {self.activation}"
        return f"swin {self.image_size} {shape} {self.mean} {self.std}"

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels. Cells of an earlier stage are brought to mean 0 and variance 1 each."""
        x = self.stem(pixels.permute(0, 2, 3, 1))
        kept, last = x, sum(self.depths[: self.stage])
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            kept = x if number == last else kept
        x = self.norm(x).flatten(1, 2)
        tokens = nn.functional.layer_norm(kept, kept.shape[-1:]).flatten(1, 2) if last < len(self.blocks) else x
        real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return States(tokens, real, x.mean(1))


def _merge(stem: str, dim: int) -> nn.Module:
    if stem == "patch":
        return PatchMerge(dim)
    return ConvEmbed(dim, 2 * dim, size=3, stride=2, padding=1)


def _stage(grid: int | None, stages: int) -> int:
    """Return the stage whose cells are the tokens, from 1."""
    stage = stages if grid is None else grid + 1 + stages if grid < 0 else grid
    if not 1 <= stage <= stages:
        raise UserError(
            f"image_grid={grid} is no stage of a swin of {stages} stages: give 1 to {stages}, or -1 to -{stages}"
        )
    return stage


def _require(image_size: int, patch: int, dim: int, widths: Sequence[int], stem: str) -> None:
    if image_size % patch != 0:
        raise UserError(f"patch={patch} does not divide image_size={image_size}: choose a divisor")
    if not widths:
        raise UserError("image_depths is empty: give the blocks of each stage, as 2,2")
    if dim % 2 ** (len(widths) - 1) != 0:
        raise UserError(
            f"a swin of {len(widths)} stages halves its width towards the first: image_dim={dim} must be a multiple "
            f"of {2 ** (len(widths) - 1)}"
        )
    if stem not in STEMS:
        raise unknown("image stem", stem, STEMS)
