"""Pictures as rows of patches: cutting, joining, embedding and fixed positions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.linear import linear


def patchify(image: Shaped[Tensor, "b c h w"], patch: int) -> Shaped[Tensor, "b p d"]:
    """Cut pictures into square patches, row by row; a patch is flattened as (height, width, channel).

    Args:
        image: pictures.
        patch: side of a patch, in pixels.

    Returns:
        Patches of d = patch * patch * c numbers.

    Raises:
        UserError: when the side of a picture is no multiple of the patch.
    """
    batch, channels, height, width = image.shape
    if height % patch != 0 or width % patch != 0:
        raise UserError(f"a picture of {height} x {width} cannot be cut into patches of {patch}: choose a divisor")
    grid = image.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Shaped[Tensor, "b p d"], patch: int, *, rows: int) -> Shaped[Tensor, "b c h w"]:
    """Join patches into pictures again, the inverse of `patchify`.

    Args:
        patches: as `patchify` returns them.
        patch: side of a patch, in pixels.
        rows: how many rows of patches a picture has.
    """
    batch, count, numbers = patches.shape
    columns, channels = count // rows, numbers // (patch * patch)
    grid = patches.reshape(batch, rows, columns, patch, patch, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, rows * patch, columns * patch)


def sincos_positions(dim: int, *, rows: int, columns: int) -> Float[Tensor, "p d"]:
    """Make fixed positions for a grid, row by row: the first half of the width tells the column, the second the row.

    Each half holds sines, then cosines, of the place times 10000^(-i / (d/4)).

    Raises:
        UserError: when the width is no multiple of 4.

    Reference:
        He et al. 2021, arXiv 2111.06377 (MAE); after Vaswani et al. 2017.
    """
    if dim % 4 != 0:
        raise UserError(f"sine-cosine positions need a width that is a multiple of 4, got {dim}")
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    angles = [place.reshape(-1, 1) * frequency for place in (column, row)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()


OCTAVES = 4
WAVES = 2 * (1 + 2 * OCTAVES)
"""Waves that tell a place along each axis, and numbers that `place_waves` makes of a place."""


def place_waves(side: int, *, octaves: int = OCTAVES) -> Float[Tensor, "p w"]:
    """Tell where each place of a square grid lies, row by row, in terms that do not depend on the grid's size.

    Of the column, then of the row: the place itself in (-1, 1), and sines and cosines of half a wave, one, two, and so
    on, across the picture.

    Args:
        side: places in a row.
        octaves: waves of each axis, each half as long as the one before.
    """
    place = (torch.arange(side, dtype=torch.float64).unsqueeze(1) + 0.5) / side
    angle = torch.pi * place * 2.0 ** torch.arange(octaves, dtype=torch.float64)
    waves = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
    axis = torch.cat([2 * place - 1, waves], dim=1)
    return torch.cat([axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)], dim=1).float()


class PatchEmbed(nn.Module):
    """A linear map of each patch, as a strided convolution.

    Args:
        channels: of the picture.
        dim: width of a token.
        patch: side of a patch, in pixels.
        bias: whether the map has a bias; CLIP's has none.
    """

    def __init__(self, channels: int, dim: int, patch: int, *, bias: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.projection = nn.Conv2d(channels, dim, patch, stride=patch, bias=bias)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p d"]:
        """Return one token per patch, row by row."""
        tokens: Tensor = self.projection(image).flatten(2).transpose(1, 2)
        return tokens

    def embed(self, patches: Float[Tensor, "b p d"]) -> Float[Tensor, "b p e"]:
        """Return one token for each of some patches that `patchify` cut."""
        weight = self.projection.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(patches, weight, self.projection.bias)
