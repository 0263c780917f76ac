"""The exact nearest rows of a matrix by way of a sieve: the same rows and scores as `exact`, sooner."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

from diptych.search.exact import exact, settle
from diptych.search.sieve import Sieve

MOST = 256
"""Nearest that can be asked for; above that, `exact` is as good."""

_QUERIES = 256


def sifted(
    sieve: Sieve,
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    allowed: Bool[np.ndarray, " n"],
    *,
    k: int,
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """Do what `exact` does: propose by the sieve, compare in float32, score in float64.

    Args:
        sieve: of the first rows; later rows are compared in float32.
        query: unit vectors.
        vectors: unit vectors, in memory or mapped from a file.
        allowed: which rows may be found.
        k: how many, at most `MOST`; fewer come back when fewer are allowed.
    """
    known = len(sieve)
    k = min(k, int(np.count_nonzero(allowed)))
    if k == 0 or np.count_nonzero(allowed[:known]) < k:
        return exact(query, vectors, allowed, k=k)
    found_rows, found_scores = np.empty((len(query), k), np.int64), np.empty((len(query), k), np.float32)
    for start in range(0, len(query), _QUERIES):
        part = slice(start, start + _QUERIES)
        proposed = sieve.propose(query[part], vectors[:known], allowed[:known], k=k)
        if proposed is None:  # very many near-equal vectors, or queries that are near to none
            found_rows[part], found_scores[part] = exact(query[part], vectors, allowed, k=k)
            continue
        which, rows = proposed
        late, _ = exact(query[part], vectors[known:], allowed[known:], k=k)
        which = np.concatenate([which, np.repeat(np.arange(len(late)), late.shape[1])])
        rows = np.concatenate([rows, known + late.ravel()])
        _, rows, scores = settle(query[part], vectors, which, rows, k=k)
        found_rows[part], found_scores[part] = rows.reshape(-1, k), scores.reshape(-1, k)
    return found_rows, found_scores
