"""The exact nearest rows of a matrix, tile by tile, scored and ordered the same however the tiles fall."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray

_QUERIES = 256
_CELLS = 1 << 20  # scores of one tile: 4 MiB, which stays in the cache
_GROUP = 16
_BAND = 1e-5  # above the rounding error of a float32 product of unit vectors
_KEPT = 1 << 21
_SCORED = 1 << 11


def exact(
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    allowed: Bool[np.ndarray, " n"],
    *,
    k: int,
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """Find the k rows of the largest inner product with each query.

    Args:
        query: unit vectors.
        vectors: unit vectors, in memory or mapped from a file.
        allowed: which rows may be found.
        k: how many; fewer come back when fewer are allowed.

    Returns:
        Row numbers and scores, best first, equal scores in the order of rows. A score depends on the two vectors
        alone, not on what else is searched: it is summed in float64 and then rounded.
    """
    k = min(k, int(np.count_nonzero(allowed)))
    if k == 0 or len(query) == 0:
        return np.empty((len(query), 0), np.int64), np.empty((len(query), 0), np.float32)
    parts = [_block(query[start : start + _QUERIES], vectors, allowed, k) for start in range(0, len(query), _QUERIES)]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([scores for _, scores in parts])


def settle(
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    which: Int64[np.ndarray, " c"],
    row: Int64[np.ndarray, " c"],
    *,
    k: int,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"], Float32[np.ndarray, " p"]]:
    """Score candidates and keep the k best of each query.

    Args:
        query: unit vectors.
        vectors: unit vectors.
        which: the query of each candidate.
        row: the row of each candidate.
        k: how many to keep for each query.

    Returns:
        The kept candidates by query, best first: their queries, rows and scores.
    """
    scores = np.empty(len(row), np.float32)
    for start in range(0, len(row), _SCORED):
        part = slice(start, start + _SCORED)
        ours, theirs = query[which[part]].astype(np.float64), vectors[row[part]].astype(np.float64)
        scores[part] = np.einsum("nd,nd->n", ours, theirs)
    order = np.lexsort((row, -scores, which))
    which, row, scores = which[order], row[order], scores[order]
    place = np.arange(len(which)) - np.searchsorted(which, which)
    return which[place < k], row[place < k], scores[place < k]


@dataclass(slots=True)
class _Candidates:
    """Pairs of query and row that may still be among the best, with their float32 scores."""

    which: list[NDArray[np.int64]] = field(default_factory=list)
    row: list[NDArray[np.int64]] = field(default_factory=list)
    score: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, which: NDArray[np.int64], row: NDArray[np.int64], score: NDArray[np.float32]) -> None:
        self.which.append(which)
        self.row.append(row)
        self.score.append(score)

    def above(self, floor: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        which, row, score = (np.concatenate(parts) for parts in (self.which, self.row, self.score))
        keep = score > floor[which]
        return which[keep], row[keep]

    def __len__(self) -> int:
        return sum(len(part) for part in self.which)


def _block(
    query: NDArray[np.float32], vectors: NDArray[np.float32], allowed: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    best = np.full((len(query), k), -np.inf, np.float32)
    floor, found = best.min(1, initial=np.inf), _Candidates()
    step = max(2048, _CELLS // len(query))
    buffer = np.empty(len(query) * min(step, len(vectors)), np.float32)  # fresh memory costs as much as the product
    for start in range(0, len(vectors), step):
        rows, scores = _scores(query, vectors[start : start + step], allowed[start : start + step], buffer)
        if len(rows) == 0:
            continue
        best = _largest(np.concatenate([best, _maxima(scores, k)], axis=1), k)
        floor = best.min(1) - np.float32(_BAND)
        which, column = np.divmod(np.flatnonzero(scores > floor[:, None]), scores.shape[1])
        found.add(which, start + rows[column], scores[which, column])
        if len(found) > _KEPT:
            # very many near-equal scores: settle what there is, so that memory stays bounded
            kept = settle(query, vectors, *found.above(floor), k=k)
            found = _Candidates()
            found.add(*kept)
    which, row, scores = settle(query, vectors, *found.above(floor), k=k)
    return row.reshape(len(query), k), scores.reshape(len(query), k)


def _scores(
    query: NDArray[np.float32], vectors: NDArray[np.float32], allowed: NDArray[np.bool_], buffer: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score one tile: the rows looked at, and a column for each; a forbidden one scores -inf."""
    rows = np.flatnonzero(allowed)
    few = 2 * len(rows) < len(allowed)
    looked = vectors[rows] if few else vectors
    scores = buffer[: len(query) * len(looked)].reshape(len(query), -1)
    np.dot(query, looked.T, out=scores)
    if few:
        return rows, scores
    if len(rows) < len(allowed):
        scores[:, ~allowed] = -np.inf
    return np.arange(len(allowed)), scores


def _maxima(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Thin scores out to the maxima of groups of columns: the k-th largest of those is at most the k-th of all."""
    groups = scores.shape[1] // _GROUP
    if groups < 4 * k:
        return scores
    thin: NDArray[np.float32] = scores[:, : groups * _GROUP].reshape(len(scores), _GROUP, groups).max(1)
    return thin


def _largest(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    first = values.shape[1] - k
    parted: NDArray[np.float32] = np.partition(values, first, axis=1)
    return parted[:, first:]
