"""Positions learnt for one grid, brought to another, so that training can go on with larger pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate


def resize_positions(positions: Float[Tensor, "n d"], places: int, *, extra: int = 0) -> Float[Tensor, "m d"]:
    """Bring the positions of a square grid to another square grid, by bicubic interpolation.

    Args:
        positions: row by row, after those that stand for no place.
        places: cells of the new grid; a square number.
        extra: positions at the beginning that stay as they are, as of a class token.

    Returns:
        `extra + places` positions; the same ones when the grid stays.
    """
    head, grid = positions[:extra], positions[extra:]
    old, new = round(len(grid) ** 0.5), round(places**0.5)
    cells = grid.T.reshape(1, -1, old, old)
    cells = interpolate(cells.float(), (new, new), mode="bicubic", antialias=new < old).to(grid.dtype)
    return torch.cat([head, cells.flatten(2)[0].T])
