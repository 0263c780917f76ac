from __future__ import annotations

import numpy as np
import pytest

from diptych.search.exact import exact
from diptych.search.heads import Heads, _growing
from diptych.search.sieve import TILE
from diptych.search.sifted import sifted


def _near_a_plane(rows: int, dim: int, seed: int, *, noise: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(9).standard_normal((12, dim))
    vectors = rng.standard_normal((rows, 12)) @ plane + noise * rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_indexes_pay(monkeypatch):
    monkeypatch.setattr("diptych.search.heads._COSTS", {1 << 30: (1024, 0)})


def _all(vectors: np.ndarray) -> np.ndarray:
    return np.ones(len(vectors), dtype=bool)


@pytest.mark.parametrize("noise", [0.0, 0.5, 3.0])
def test_the_bound_holds_for_every_pair_and_is_reached(noise):
    vectors, query = _near_a_plane(TILE, 64, 0, noise=noise), _near_a_plane(50, 64, 1, noise=noise)
    directions = np.linalg.qr(np.random.default_rng(2).standard_normal((64, 20)))[0].astype(np.float32)
    heads = Heads(directions, np.empty((0, 21, TILE), np.float32), np.array(99)).extended(vectors)
    bound = heads.of(query).astype(np.float64) @ heads.tiles[0]
    true = query.astype(np.float64) @ vectors.T.astype(np.float64)
    assert (bound >= true - 1e-6).all()
    own = np.einsum("nm,nm->n", heads.of(vectors).astype(np.float64), heads.tiles[0].T)
    np.testing.assert_allclose(own, 1, atol=3e-6)  # a vector and itself: the rests point the same way


def test_directions_are_those_that_hold_most_and_few_rows_are_left():
    vectors, query = _near_a_plane(8 * TILE, 128, 0, noise=0.3), _near_a_plane(40, 128, 1, noise=0.3)
    heads = Heads.fitted(vectors, _all(vectors))
    assert heads.directions.shape == (128, 16)  # 12, and they come in sixteens
    assert heads.extended(vectors).of(vectors)[:, -1].max() < 0.4
    which, _ = heads.extended(vectors).propose(query, vectors, _all(vectors), k=10)
    assert 400 <= len(which) <= 420


def test_where_no_direction_matters_there_are_no_heads():
    vectors = np.random.default_rng(0).standard_normal((2 * TILE, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert Heads.fitted(vectors, _all(vectors)) is None


def test_queries_that_are_near_to_nothing_are_compared_with_everything():
    """As sentences are to pictures: the bounds of what they lie outside of rule out too little."""
    vectors = _near_a_plane(16 * TILE, 96, 0, noise=0.3)
    query = np.random.default_rng(4).standard_normal((30, 96)).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    heads = Heads.fitted(vectors, _all(vectors)).extended(vectors)
    assert heads.propose(query, vectors, _all(vectors), k=10) is None
    rows, scores = sifted(heads, query, vectors, _all(vectors), k=10)
    expected = exact(query, vectors, _all(vectors), k=10)
    assert rows.tolist() == expected[0].tolist()
    assert scores.tolist() == expected[1].tolist()


def test_heads_grow_tile_by_tile(tmp_path):
    vectors = _near_a_plane(3 * TILE + 50, 128, 0, noise=0.3)
    fitted = Heads.fitted(vectors, _all(vectors))
    whole, grown = fitted.extended(vectors), fitted.extended(vectors[: TILE + 50])
    assert (len(whole), len(grown)) == (3 * TILE, TILE)
    grown.save(tmp_path / "heads")
    np.testing.assert_array_equal(Heads.load(tmp_path / "heads").extended(vectors).tiles, whole.tiles)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 64])
def test_tiles_come_once_each_in_growing_groups_from_all_over(count):
    groups = [list(group) for group in _growing(count)]
    assert sorted(tile for group in groups for tile in group) == list(range(count))
    assert [len(group) for group in groups] == sorted(len(group) for group in groups)


def test_where_it_pays_for_few_queries_only_many_are_compared_with_everything(monkeypatch):
    monkeypatch.setattr("diptych.search.heads._COSTS", {4: (1024, 0), 1 << 30: (1024, 10**9)})
    vectors = _near_a_plane(8 * TILE, 128, 0, noise=0.3)
    heads = Heads.fitted(vectors, _all(vectors)).extended(vectors)
    assert heads.most == 4
    assert heads.propose(vectors[:5], vectors, _all(vectors), k=10) is None
    assert heads.propose(vectors[:4], vectors, _all(vectors), k=10) is not None
