"""Reader: from what a tower returns, its summary and if wanted its cells, to one vector."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.nn.head import Head
from diptych.nn.pool import CellGather, CellPool
from diptych.nn.standardise import Standardise


class Reader(nn.Module):
    """A head on the summary, and beside it a linear map of what learned queries take from the cells.

    Args:
        dim: width of the summary.
        out: width of the result.
        cells: width of the cells (places of a grid, words); None leaves them unread.
        queries: how many weighted means of the cells are taken.
        head: "linear" or "mlp", on the summary.
        hidden: width inside an mlp head.
        dropout: of the summary's features.
        cell_dropout: of whole cells, and of what the queries take.
        standardise: bring every feature to mean 0 and deviation 1 over the data, once `look` and `settle` were called.
        gather: what makes one vector of the cells, in the place of the queries; it standardises them itself.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        cells: int | None = None,
        queries: int = 8,
        head: str = "linear",
        hidden: int = 1024,
        dropout: float = 0.0,
        cell_dropout: float = 0.0,
        standardise: bool = False,
        gather: CellGather | None = None,
    ) -> None:
        super().__init__()
        self.standardised = standardise
        self.even_summary = Standardise(dim) if standardise else None
        self.head = Head(dim, out, kind=head, hidden=hidden, dropout=dropout)
        self.cells: nn.Sequential | None = None
        self.pool = gather
        if gather is None and cells is not None:
            self.pool = CellPool(cells, queries=queries, drop=cell_dropout, standardise=standardise)
        if self.pool is not None:
            self.cells = nn.Sequential(nn.Dropout(cell_dropout), nn.Linear(self.pool.width, out))

    def forward(self, states: States) -> Float[Tensor, "b e"]:
        """Read; float32 whatever the layers compute in."""
        summary = states.summary if self.even_summary is None else self.even_summary(states.summary)
        vector: Tensor = self.head(summary).float()
        if self.pool is not None and self.cells is not None:
            vector = vector + self.cells(self.pool(states.tokens, states.mask)).float()
        return vector

    def look(self, states: States) -> None:
        """Take in features for their statistics."""
        if self.even_summary is not None:
            self.even_summary.look(states.summary)
        if self.pool is not None and self.pool.even is not None:
            self.pool.even.look(states.tokens, states.mask)

    def settle(self) -> None:
        """Use the statistics of what was taken in."""
        for even in (self.even_summary, None if self.pool is None else self.pool.even):
            if even is not None:
                even.settle()
