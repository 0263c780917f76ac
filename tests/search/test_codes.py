from __future__ import annotations

import numpy as np
import pytest
import torch

from diptych.core.errors import UserError
from diptych.search import coded as module
from diptych.search.coded import coded
from diptych.search.codes import TILE, Codes, Query, candidates
from diptych.search.exact import exact
from diptych.search.folder import FolderIndex

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


@pytest.mark.parametrize("kind", ["even", "outlier", "narrow", "sparse"])
@pytest.mark.parametrize(("share", "k"), [(1.0, 1), (0.6, 10), (0.3, 200)])
def test_equals_exact_search(kind, share, k):
    vectors, query = _unit(_ROWS, 40, 0, kind=kind), _unit(300, 40, 1, kind=kind)
    vectors[5::400] = vectors[0]  # ties, in every tile and behind the last
    query[7] = vectors[0]
    allowed = np.random.default_rng(2).random(_ROWS) < share
    rows, scores = coded(Codes.empty(40).extended(vectors), query, vectors, allowed, k=k)
    expected_rows, expected_scores = exact(query, vectors, allowed, k=k)
    assert rows.tolist() == expected_rows.tolist()
    assert scores.tolist() == expected_scores.tolist()


def test_few_queries_take_many_tiles_at_once():
    vectors, query = _unit(_ROWS, 24, 0), _unit(3, 24, 1)
    codes, allowed = Codes.empty(24).extended(vectors), np.ones(_ROWS, dtype=bool)
    together = coded(codes, query, vectors, allowed, k=10)
    for place in range(3):
        alone = coded(codes, query[place : place + 1], vectors, allowed, k=10)
        assert alone[0].tolist() == together[0][place : place + 1].tolist()


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
    assert coded(codes, vectors[:2], vectors, allowed, k=5)[0].tolist() == [[1, 3, 5, 7, 9]] * 2


def test_codes_grow_tile_by_tile(tmp_path):
    vectors = _unit(_ROWS, 16, 0)
    whole, grown = Codes.empty(16).extended(vectors), Codes.empty(16).extended(vectors[: TILE + 50])
    assert (len(whole), len(grown)) == (3 * TILE, TILE)
    grown.save(tmp_path / "codes")
    again = Codes.load(tmp_path / "codes").extended(vectors)
    for name in ("rotation", "values", "steps", "errors"):
        assert torch.equal(getattr(again, name), getattr(whole, name))


@pytest.fixture
def index(tmp_path):
    with FolderIndex.create(tmp_path / "index", dim=16, model="m") as made:
        made.add([str(i) for i in range(2 * TILE)], _unit(2 * TILE, 16, 0))
        yield made


def test_an_index_is_searched_by_its_codes_with_the_same_hits(index, tmp_path, monkeypatch):
    query = _unit(20, 16, 1)
    plain = index.search(query)
    plan = index.optimize(coded_from=1)
    assert str(plan) == "exact search over 8,192 vectors: all in 8 bits, the best in full precision"
    monkeypatch.setattr("diptych.search.store.exact_search", None)  # not the plain way
    assert index.search(query) == index.search(query, exact=True) == plain
    index.upsert(["late"], query[:1])
    index.delete([plain[1][0].key])
    assert index.search(query)[0][0].key == "late"
    assert [hit.key for hit in index.search(query)[1][:9]] == [hit.key for hit in plain[1][1:]]
    index.add([f"more {i}" for i in range(TILE)], _unit(TILE, 16, 3))
    assert "4,097 later ones in full precision" in str(index.plan())
    found = index.search(query)
    index.optimize(coded_from=1)
    assert "later" not in str(index.plan())
    assert index.search(query) == found
    assert len(list((tmp_path / "index").glob("codes-*"))) == 1
    index.close()
    with FolderIndex.open(tmp_path / "index", read_only=True) as reader:
        assert reader.search(query) == found


def test_codes_go_with_compaction_and_below_the_size(index, tmp_path):
    index.optimize(coded_from=1)
    index.vacuum()
    assert list((tmp_path / "index").glob("codes-*")) == []
    index.optimize(coded_from=1)
    assert "every vector is compared" in str(index.optimize())
    assert list((tmp_path / "index").glob("codes-*")) == []


def test_lost_codes_are_done_without_and_broken_ones_are_told(index, tmp_path):
    index.optimize(coded_from=1)
    query = _unit(5, 16, 1)
    plain = index.search(query)
    index.close()
    (file,) = (tmp_path / "index").glob("codes-*")
    file.write_bytes(b"broken")
    with FolderIndex.open(tmp_path / "index") as again, pytest.raises(UserError, match="run `optimize` on the index"):
        again.search(query)
    file.unlink()
    with FolderIndex.open(tmp_path / "index") as again:
        assert again.search(query) == plain
        again.optimize(coded_from=1)
        assert again.search(query) == plain
