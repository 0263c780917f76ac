"""The exact nearest rows of a matrix by way of its codes in 8 bits: the same rows and scores as `exact`, sooner."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

from diptych.search.codes import Codes, candidates
from diptych.search.exact import exact, settle

MOST = 256
"""Nearest that can be asked for; above that, `exact` is as good."""

_QUERIES = 256
_CANDIDATES = 1 << 21
_BAND = 1e-5  # above the rounding error of a float32 product of unit vectors


def coded(
    codes: Codes,
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    allowed: Bool[np.ndarray, " n"],
    *,
    k: int,
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """Do what `exact` does: propose by the codes, compare in float32, score in float64.

    Args:
        codes: of the first rows; later rows are compared in float32.
        query: unit vectors.
        vectors: unit vectors, in memory or mapped from a file.
        allowed: which rows may be found.
        k: how many, at most `MOST`; fewer come back when fewer are allowed.
    """
    known = len(codes)
    k = min(k, int(np.count_nonzero(allowed)))
    if k == 0 or np.count_nonzero(allowed[:known]) < k:
        return exact(query, vectors, allowed, k=k)
    late, _ = exact(query, vectors[known:], allowed[known:], k=k)
    found_rows, found_scores = np.empty((len(query), k), np.int64), np.empty((len(query), k), np.float32)
    for start in range(0, len(query), _QUERIES):
        part = slice(start, start + _QUERIES)
        proposed = candidates(codes, query[part], allowed[:known], k=k, most=_CANDIDATES)
        if proposed is None:  # very many near-equal vectors
            found_rows[part], found_scores[part] = exact(query[part], vectors, allowed, k=k)
            continue
        which, rows = _nearly_best(query[part], vectors, *proposed, k=k)
        which = np.concatenate([which, np.repeat(np.arange(len(late[part])), late.shape[1])])
        rows = np.concatenate([rows, known + late[part].ravel()])
        _, rows, scores = settle(query[part], vectors, which, rows, k=k)
        found_rows[part], found_scores[part] = rows.reshape(-1, k), scores.reshape(-1, k)
    return found_rows, found_scores


def _nearly_best(
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    which: Int64[np.ndarray, " c"],
    rows: Int64[np.ndarray, " c"],
    *,
    k: int,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Keep the k best of each query in float32, and what comes so near that rounding might hide it."""
    edges = np.searchsorted(which, np.arange(len(query) + 1)).tolist()
    kept = []
    for one, first, last in zip(query, edges, edges[1:], strict=False):
        scores = vectors[rows[first:last]] @ one
        floor = np.partition(scores, len(scores) - k)[len(scores) - k] - _BAND
        kept.append(first + np.flatnonzero(scores >= floor))
    best = np.concatenate(kept)
    return which[best], rows[best]
