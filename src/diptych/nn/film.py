"""FiLM: what is asked decides, channel by channel, what is amplified and what is left out while a picture is read.

Reference:
    Perez et al. 2017, arXiv 1709.07871. The gain is 1 + what the question says, so that blocks begin as plain residual
    ones; positions are those that the cells bring with them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.errors import UserError


class FiLMBlock(nn.Module):
    """A 1 x 1 convolution, a 3 x 3 one whose normalised channels the code scales and shifts, and a way around it.

    Args:
        dim: channels.
        code: width of what steers.
    """

    def __init__(self, dim: int, code: int) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.norm, self.steer = nn.BatchNorm2d(dim, affine=False), nn.Linear(code, 2 * dim)

    def forward(self, x: Float[Tensor, "b d h w"], code: Float[Tensor, "b e"]) -> Float[Tensor, "b d h w"]:
        """Steer a grid."""
        x = F.relu(self.enter(x))
        gain, shift = self.steer(code)[:, :, None, None].chunk(2, dim=1)
        steered: Tensor = F.relu(self.norm(self.conv(x)) * (1 + gain) + shift)
        return x + steered


class FiLM(nn.Module):
    """Blocks one after another over the cells of a picture, the first of which stands for the whole of it.

    Args:
        dim: width of the cells and of what steers.
        blocks: how many.
    """

    def __init__(self, dim: int, *, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FiLMBlock(dim, dim) for _ in range(blocks))
        self.most = nn.Linear(dim, dim)

    def forward(
        self, cells: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"], question: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n d"]:
        """Return the cells as the question would have them read; to the first is added the most of any place.

        Raises:
            UserError: when the places are no square grid.
        """
        places = cells.shape[1] - 1
        if places == 0:  # no picture at all
            return cells
        side = round(places**0.5)
        if side * side != places:
            raise UserError(f"{places} cells are no square grid, which film needs: give film=0 for this image tower")
        grid = cells[:, 1:].transpose(1, 2).reshape(len(cells), -1, side, side)
        grid = grid * mask[:, 1:].all(1)[:, None, None, None]
        grid = grid.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            grid = block(grid, question)
        whole = cells[:, :1] + self.most(grid.amax((2, 3))).unsqueeze(1)
        return torch.cat([whole, grid.flatten(2).transpose(1, 2)], 1)
