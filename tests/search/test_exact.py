from __future__ import annotations

import numpy as np
import pytest

from diptych.search import exact as module
from diptych.search.exact import exact


def _unit(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _by_hand(query: np.ndarray, vectors: np.ndarray, allowed: np.ndarray, k: int) -> tuple[list, list]:
    """Score in float64, round, sort by score and then by row."""
    rows, scores = [], []
    for one in query:
        all_scores = np.einsum("nd,d->n", vectors.astype(np.float64), one.astype(np.float64)).astype(np.float32)
        order = [row for row in np.lexsort((np.arange(len(vectors)), -all_scores)) if allowed[row]][:k]
        rows.append(order)
        scores.append(all_scores[order].tolist())
    return rows, scores


@pytest.mark.parametrize(("rows", "k"), [(1, 1), (15, 20), (100, 10), (5000, 10), (5000, 700)])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.1])
def test_equals_sorting_everything(rows, k, share, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 2048 * 8)  # several tiles and
    monkeypatch.setattr(module, "_QUERIES", 5)  # several blocks of queries
    vectors, query = _unit(rows, 24), _unit(7, 24, seed=1)
    vectors[rows // 2 :: 3] = vectors[0]  # ties, in many tiles
    query[3] = vectors[0]
    allowed = np.random.default_rng(2).random(rows) < share
    found_rows, found_scores = exact(query, vectors, allowed, k=k)
    expected_rows, expected_scores = _by_hand(query, vectors, allowed, k)
    assert found_rows.tolist() == expected_rows
    assert found_scores.tolist() == pytest.approx(np.array(expected_scores), abs=1e-7)


def test_very_many_ties_are_settled_in_order_and_in_bounded_steps(monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 2048)
    monkeypatch.setattr(module, "_KEPT", 3000)
    vectors = np.repeat(_unit(1, 33), 20_000, axis=0)
    rows, scores = exact(vectors[:2], vectors, np.arange(20_000) % 2 == 1, k=5)
    assert rows.tolist() == [[1, 3, 5, 7, 9]] * 2
    assert scores.tolist() == pytest.approx(np.ones((2, 5)), abs=1e-6)


def test_a_score_does_not_depend_on_what_else_is_searched():
    vectors, query = _unit(4000, 77), _unit(300, 77, seed=1)
    allowed = np.ones(4000, dtype=bool)
    rows, scores = exact(query, vectors, allowed, k=9)
    alone = [exact(query[i : i + 1], vectors[:3000], allowed[:3000], k=9) for i in (0, 17, 299)]
    for one, (alone_rows, alone_scores) in zip((0, 17, 299), alone, strict=True):
        same = {row: score for row, score in zip(rows[one], scores[one], strict=True) if row < 3000}
        pairs = dict(zip(alone_rows[0], alone_scores[0], strict=True))
        assert {row: pairs[row] for row in same} == same


def test_nothing_to_find():
    empty = np.empty((0, 4), np.float32)
    assert exact(_unit(3, 4), empty, np.empty(0, bool), k=5)[0].shape == (3, 0)
    assert exact(_unit(3, 4), _unit(5, 4), np.zeros(5, bool), k=5)[0].shape == (3, 0)
    assert exact(empty, _unit(5, 4), np.ones(5, bool), k=5)[0].shape == (0, 0)
