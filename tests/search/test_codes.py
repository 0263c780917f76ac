from __future__ import annotations

import numpy as np
import pytest
import torch

from diptych.search import codes as module
from diptych.search.codes import Codes, Query, candidates
from diptych.search.sieve import TILE
from diptych.search.sifted import sifted

_ROWS = 3 * TILE + 100


def _unit(rows: int, dim: int, seed: int, *, kind: str = "even") -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    if kind == "outlier":
        vectors[:, 3] += 30  # one coordinate that dwarfs the others, as pretrained towers have
    if kind == "narrow":
        vectors = 1 + 0.01 * vectors  # all in nearly the same direction
    if kind == "sparse":
        vectors *= np.abs(vectors) > 2
        vectors[:, 0] += 0.1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["even", "outlier", "narrow", "sparse"])
def test_the_bounds_hold_for_every_pair(kind):
    vectors, query = _unit(TILE, 40, 0, kind=kind), _unit(9, 40, 1, kind=kind)
    codes = Codes.empty(40).extended(vectors)
    asked = Query.of(query, codes.rotation)
    products = codes.values.long() @ asked.values.T.long()
    steps, errors = (part.repeat(16)[:, None].double() for part in (codes.steps, codes.errors))
    guess = products * steps * asked.step
    bound = (asked.length * errors + asked.error) * asked.step
    wrong = (guess - torch.from_numpy(vectors.astype(np.float64) @ query.T.astype(np.float64))).abs()
    assert (wrong <= bound).all()
    assert bound.max() < 0.06  # and they are worth something
    # at least a fifteenth of what they allow does happen: not bounds of something else
    assert wrong.max() > bound.min() / 15


def test_candidates_are_few():
    vectors, query = _unit(16 * TILE, 256, 0), _unit(50, 256, 1)
    found = candidates(Codes.empty(256).extended(vectors), query, np.ones(len(vectors), dtype=bool), k=10, most=1 << 20)
    assert 500 <= len(found[0]) < 50 * 400


def test_too_many_near_equal_vectors_are_searched_the_plain_way(monkeypatch):
    monkeypatch.setattr(module, "_CANDIDATES", 3000)
    vectors = np.repeat(_unit(1, 33, 0), 2 * TILE, axis=0)
    allowed = np.arange(2 * TILE) % 2 == 1
    codes = Codes.empty(33).extended(vectors)
    assert candidates(codes, vectors[:2], allowed, k=5, most=3000) is None
    assert sifted(codes, vectors[:2], vectors, allowed, k=5)[0].tolist() == [[1, 3, 5, 7, 9]] * 2


def test_codes_grow_tile_by_tile(tmp_path):
    vectors = _unit(_ROWS, 16, 0)
    whole, grown = Codes.empty(16).extended(vectors), Codes.empty(16).extended(vectors[: TILE + 50])
    assert (len(whole), len(grown)) == (3 * TILE, TILE)
    grown.save(tmp_path / "codes")
    again = Codes.load(tmp_path / "codes").extended(vectors)
    for name in ("rotation", "values", "steps", "errors"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
