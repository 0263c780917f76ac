"""Cells: what a tower sees of a picture, its places and its summary, as tokens of one width."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.nn.patches import WAVES, place_waves, sincos_positions
from diptych.nn.standardise import Standardise


class Cells(nn.Module):
    """A linear map of each place of the grid, its position added, and one token more for the summary.

    A fixed table of sines was made for long rows: on a grid of 8 x 8 three quarters of its features are nearly the same
    everywhere, and what lies left of what is learnt late or never. A learned map of a few waves, each as long as the
    picture or a part of it, can make a place as loud as the data asks.

    Args:
        token_dim: width of the tower's tokens.
        summary_dim: width of its summary.
        dim: width of the result.
        positions: add to each place where it is; a grid must be square then.
        places: how it is told: "learned" (a map of waves) or "fixed" (the sines and cosines of MAE).
        standardise: bring every feature to mean 0 and deviation 1 over the data, once `look` and `settle` were called.
    """

    def __init__(
        self,
        token_dim: int,
        summary_dim: int,
        dim: int,
        *,
        positions: bool = True,
        places: Literal["learned", "fixed"] = "fixed",
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.positions, self.dim, self.standardised = positions, dim, standardise
        self.even_cells = Standardise(token_dim) if standardise else None
        self.even_summary = Standardise(summary_dim) if standardise else None
        self.cells, self.summary = nn.Linear(token_dim, dim), nn.Linear(summary_dim, dim)
        self.place = nn.Linear(WAVES, dim) if positions and places == "learned" else None

    def forward(self, states: States) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """Return the tokens, the summary first, and which are real.

        Raises:
            UserError: when positions are wanted and the grid is not square.
        """
        tokens = states.tokens if self.even_cells is None else self.even_cells(states.tokens)
        summary = states.summary if self.even_summary is None else self.even_summary(states.summary)
        cells = self.cells(tokens)
        if self.positions:
            cells = cells + self._places(cells)
        mask = nn.functional.pad(states.mask, (1, 0), value=True)
        return torch.cat([self.summary(summary).unsqueeze(1), cells], dim=1), mask

    def look(self, states: States) -> None:
        """Take in features for their statistics."""
        if self.even_cells is not None and self.even_summary is not None:
            self.even_cells.look(states.tokens, states.mask)
            self.even_summary.look(states.summary)

    def settle(self) -> None:
        """Use the statistics of what was taken in."""
        for even in (self.even_cells, self.even_summary):
            if even is not None:
                even.settle()

    def _places(self, cells: Float[Tensor, "b n d"]) -> Float[Tensor, "n d"]:
        count = cells.shape[1]
        side = round(count**0.5)
        if side * side != count:
            raise UserError(f"{count} cells are no square grid: set positions=false for this image tower")
        if self.place is None:
            return sincos_positions(self.dim, rows=side, columns=side).to(cells)
        told: Tensor = self.place(place_waves(side).to(cells))
        return told
