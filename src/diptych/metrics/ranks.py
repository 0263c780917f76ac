"""The rank of the best positive of every query, both ways, counted over tiles of one score matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor

from diptych.core.errors import UserError, unknown
from diptych.metrics.truth import Truth

_BEATS: dict[str, tuple[Callable[..., Tensor], ...]] = {
    "pessimistic": (torch.ge,),
    "optimistic": (torch.gt,),
    "mean": (torch.ge, torch.gt),
}


@torch.no_grad()
def ranks(
    image: Float[Tensor, "m d"],
    text: Float[Tensor, "n d"],
    *,
    image_id: Int[Tensor, " m"],
    text_id: Int[Tensor, " n"],
    text_key: Int[Tensor, " n"] | None = None,
    ties: str = "pessimistic",
    chunk: int | None = None,
) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " n"]]:
    """Rank the best positive of each image among the texts, and of each text among the images.

    The rank is 1 + the number of negatives that score at least as much as the best positive (more than it, under
    optimistic ties); the other positives do not count. The arguments are those of `retrieval`.

    Returns:
        A rank for each image and for each text, from 1, on the CPU.

    Raises:
        UserError: for an image without text, a text without image, vectors that are not finite, unknown `ties`.
    """
    _check(image, text, ties=ties)
    truth = Truth.of(image_id, text_id, torch.arange(len(text), device=text.device) if text_key is None else text_key)
    rows = chunk if chunk is not None else (256 if image.device.type == "cpu" else 4096)
    with _full_precision(image.device.type):
        return _ranks(_Products(image, text, truth, rows), truth, ties)


@torch.no_grad()
def ranks_of_scores(
    scores: Float[Tensor, "m n"],
    *,
    image_id: Int[Tensor, " m"],
    text_id: Int[Tensor, " n"],
    text_key: Int[Tensor, " n"] | None = None,
    ties: str = "pessimistic",
) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " n"]]:
    """Do as `ranks` does with scores that are no products of vectors: one row an image, one column a text."""
    _check(scores, ties=ties)
    texts = scores.shape[1]
    truth = Truth.of(image_id, text_id, torch.arange(texts, device=scores.device) if text_key is None else text_key)
    return _ranks(_Given(scores, truth, 256 if scores.device.type == "cpu" else 4096), truth, ties)


def _check(*sides: Tensor, ties: str) -> None:
    if ties not in _BEATS:
        raise unknown("tie policy", ties, _BEATS)
    if not all(bool(side.isfinite().all()) for side in sides):
        what = "vectors" if len(sides) > 1 else "scores"
        raise UserError(f"cannot rank: some {what} hold NaN or infinity; look at the training of the model")


def _ranks(scores: _Tiles, truth: Truth, ties: str) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " n"]]:
    of_images, of_texts = _beaten(scores, *_best(scores), _BEATS[ties])
    kinds = len(_BEATS[ties])
    return _rank(of_images, truth.image_order, kinds), _rank(of_texts, truth.text_order, kinds)


class _Tiles(ABC):
    """Tiles of the score matrix, both sides in the order of their ids; one buffer, overwritten by the next."""

    def __init__(self, truth: Truth, rows: int, device: torch.device) -> None:
        self.rows, self.columns = rows, 4 * rows
        self.images, self.texts = len(truth.image_order), len(truth.text_order)
        self._truth = truth
        self.tile = torch.empty(self.rows, self.columns, dtype=torch.float32, device=device)
        self.flags = torch.empty_like(self.tile)

    def tiles(self, *, all_tiles: bool) -> Iterator[tuple[int, int, Int[Tensor, " p"], Int[Tensor, " p"]]]:
        """Fill `tile` with one part of the matrix after another; where it starts, and the positives in it."""
        for row, column, at_row, at_column in self._truth.tiles(self.rows, self.columns):
            if all_tiles or len(at_row):
                self.fill(row, column)
                yield row, column, at_row, at_column

    @abstractmethod
    def fill(self, row: int, column: int) -> None:
        """Put the part of the matrix that starts there into `tile`; what stands beyond its end is not read."""


class _Products(_Tiles):
    """Inner products of vectors.

    Every tile has the same shape, the last ones padded: a matrix product rounds alike only at equal shapes, and a
    tie must be seen wherever the two vectors lie.
    """

    def __init__(self, image: Float[Tensor, "m d"], text: Float[Tensor, "n d"], truth: Truth, rows: int) -> None:
        super().__init__(truth, rows, image.device)
        self._image = _sorted(image, truth.image_order, self.rows)
        self._text = _sorted(text, truth.text_order, self.columns)

    def fill(self, row: int, column: int) -> None:
        """Multiply."""
        text = self._text[column : column + self.columns]
        torch.mm(self._image[row : row + self.rows], text.T, out=self.tile)


class _Given(_Tiles):
    """Scores that stand in a matrix."""

    def __init__(self, scores: Float[Tensor, "m n"], truth: Truth, rows: int) -> None:
        super().__init__(truth, rows, scores.device)
        self._scores = scores

    def fill(self, row: int, column: int) -> None:
        """Copy, in the order of the ids."""
        images = self._truth.image_order[row : row + self.rows]
        texts = self._truth.text_order[column : column + self.columns]
        self.tile[: len(images), : len(texts)] = self._scores[images][:, texts]


def _best(scores: _Tiles) -> tuple[Float32[Tensor, " m"], Float32[Tensor, " n"]]:
    """Find the best positive score of each row and column, visiting only the tiles that hold positives."""
    row_best = scores.tile.new_full((_padded(scores.images, scores.rows),), -torch.inf)
    column_best = scores.tile.new_full((_padded(scores.texts, scores.columns),), -torch.inf)
    for row, column, at_row, at_column in scores.tiles(all_tiles=False):
        values = scores.tile[at_row, at_column]
        row_best[row : row + scores.rows].scatter_reduce_(0, at_row, values, "amax")
        column_best[column : column + scores.columns].scatter_reduce_(0, at_column, values, "amax")
    return row_best, column_best


def _beaten(
    scores: _Tiles,
    row_best: Float32[Tensor, " m"],
    column_best: Float32[Tensor, " n"],
    beats: tuple[Callable[..., Tensor], ...],
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Count the negatives that beat the best positive of each row and column, in each of the senses given."""
    of_rows, of_columns = (torch.zeros_like(best, dtype=torch.int64) for best in (row_best, column_best))
    rows, columns, tile, flags = scores.rows, scores.columns, scores.tile, scores.flags
    for row, column, at_row, at_column in scores.tiles(all_tiles=True):
        tile[at_row, at_column] = -torch.inf
        tile[scores.images - row :] = -torch.inf
        tile[:, scores.texts - column :] = -torch.inf
        for beat in beats:
            # flags are floats: adding up bools is several times slower, and a tile's counts are exact in float32
            beat(tile, row_best[row : row + rows, None], out=flags)
            of_rows[row : row + rows] += flags.sum(1).long()
            beat(tile, column_best[column : column + columns], out=flags)
            of_columns[column : column + columns] += flags.sum(0).long()
    return of_rows[: scores.images], of_columns[: scores.texts]


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _sorted(vectors: Float[Tensor, "n d"], order: Int[Tensor, " n"], multiple: int) -> Float32[Tensor, "p d"]:
    """Copy in a new order to float32, with rows of zeros up to a multiple; by parts, to hold one copy only."""
    padded = vectors.new_zeros(_padded(len(vectors), multiple), vectors.shape[1], dtype=torch.float32)
    for start in range(0, len(order), multiple):
        padded[start : start + multiple][: len(order) - start] = vectors[order[start : start + multiple]]
    return padded


def _rank(beaten: Int[Tensor, " n"], order: Int[Tensor, " n"], kinds: int) -> Float64[Tensor, " n"]:
    return 1 + torch.empty_like(beaten).index_copy_(0, order, beaten).cpu().double() / kinds


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """Compute products in true float32, whatever a trainer has set: rounded scores tie where they should not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
