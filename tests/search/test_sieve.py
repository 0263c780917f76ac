"""Search by a sieve of either kind gives the hits of plain search, to the last digit."""

from __future__ import annotations

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.search import sieve as module
from diptych.search.codes import Codes
from diptych.search.exact import exact
from diptych.search.folder import FolderIndex
from diptych.search.heads import Heads
from diptych.search.sieve import TILE, Sieve
from diptych.search.sifted import sifted

_ROWS = 3 * TILE + 100


def _unit(rows: int, dim: int, seed: int, *, kind: str = "even") -> np.ndarray:
    """Draw unit vectors; those of kind "flat" have no main directions, the others lie around 30 in a plane of 8."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    if kind != "flat":
        plane, centres = (
            np.random.default_rng(9).standard_normal((8, dim)),
            np.random.default_rng(8).normal(size=(30, 8)),
        )
        vectors = 0.1 * vectors + (centres[rng.integers(0, 30, rows)] + 0.3 * rng.standard_normal((rows, 8))) @ plane
    if kind == "outlier":
        vectors[:, 3] += 30  # one coordinate that dwarfs the others, as pretrained towers have
    if kind == "narrow":
        vectors = 10 + 0.01 * vectors  # all in nearly the same direction
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_indexes_pay(monkeypatch):
    monkeypatch.setattr("diptych.search.heads._COSTS", {1 << 30: (1024, 0)})


def _sieve(name: str, vectors: np.ndarray) -> Sieve:
    if name == "codes":
        return Codes.empty(vectors.shape[1]).extended(vectors)
    directions = np.linalg.qr(np.random.default_rng(3).standard_normal((vectors.shape[1], 16)))[0].astype(np.float32)
    fitted = Heads.fitted(vectors, np.ones(len(vectors), dtype=bool))
    return (fitted or Heads(directions, np.empty((0, 17, TILE), np.float32), np.array(300))).extended(vectors)


@pytest.mark.parametrize("name", ["codes", "heads"])
@pytest.mark.parametrize("kind", ["even", "flat", "outlier", "narrow"])
@pytest.mark.parametrize(("share", "k"), [(1.0, 1), (0.6, 10), (0.3, 200)])
def test_equals_exact_search(name, kind, share, k):
    vectors, query = _unit(_ROWS, 40, 0, kind=kind), _unit(300 if kind == "even" else 20, 40, 1, kind=kind)
    vectors[5::400] = vectors[0]  # ties, in every tile and behind the last
    query[7] = vectors[0]
    allowed = np.random.default_rng(2).random(_ROWS) < share
    allowed[:TILE] &= np.arange(TILE) > TILE - 50  # the first tile may hold fewer than are looked for
    rows, scores = sifted(_sieve(name, vectors), query, vectors, allowed, k=k)
    expected_rows, expected_scores = exact(query, vectors, allowed, k=k)
    assert rows.tolist() == expected_rows.tolist()
    assert scores.tolist() == expected_scores.tolist()


@pytest.mark.parametrize("name", ["codes", "heads"])
def test_one_query_finds_what_it_finds_among_many(name):
    vectors, query = _unit(_ROWS, 24, 0), _unit(3, 24, 1)
    sieve, allowed = _sieve(name, vectors), np.ones(_ROWS, dtype=bool)
    together = sifted(sieve, query, vectors, allowed, k=10)
    for place in range(3):
        alone = sifted(sieve, query[place : place + 1], vectors, allowed, k=10)
        assert alone[0].tolist() == together[0][place : place + 1].tolist()


def test_the_choice_is_by_the_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "cpuinfo")
    for flags, quick in (("avx2 avx512f", False), ("avx512f avx512_vnni", True)):
        (tmp_path / "cpuinfo").write_text(f"flags\t: fpu {flags}\n")
        module.quick_integers.cache_clear()
        assert module.quick_integers() is quick
    module.quick_integers.cache_clear()


@pytest.fixture(params=["codes", "heads"])
def kind(request, monkeypatch):
    for place in ("sieve", "upkeep"):
        monkeypatch.setattr(f"diptych.search.{place}.quick_integers", lambda: request.param == "codes")
    return request.param


@pytest.fixture
def index(tmp_path, kind):
    with FolderIndex.create(tmp_path / "index", dim=128, model="m") as made:
        made.add([str(i) for i in range(2 * TILE)], _unit(2 * TILE, 128, 0))
        yield made


def test_an_index_is_searched_by_its_sieve_with_the_same_hits(index, kind, tmp_path, monkeypatch):
    query = _unit(20, 128, 1)
    plain = index.search(query)
    plan = index.optimize(sifted_from=1)
    assert str(plan) == (
        "exact search over 8,192 vectors: nearly all ruled out by a part of each vector, the rest compared"
    )
    monkeypatch.setattr("diptych.search.store.exact_search", None)  # not the plain way
    assert index.search(query) == index.search(query, exact=True) == plain
    index.upsert(["late"], query[:1])
    index.delete([plain[1][0].key])
    assert index.search(query)[0][0].key == "late"
    assert [hit.key for hit in index.search(query)[1][:9]] == [hit.key for hit in plain[1][1:]]
    index.add([f"more {i}" for i in range(TILE)], _unit(TILE, 128, 3))
    assert "4,097 later ones in full" in str(index.plan())
    found = index.search(query)
    index.optimize(sifted_from=1)
    assert "later" not in str(index.plan())
    assert index.search(query) == found
    assert len(list((tmp_path / "index").glob(f"{kind}-*"))) == 1
    index.close()
    with FolderIndex.open(tmp_path / "index", read_only=True) as reader:
        assert reader.search(query) == found


def test_a_sieve_goes_with_compaction_and_below_the_size(index, kind, tmp_path):
    index.optimize(sifted_from=1)
    index.vacuum()
    assert list((tmp_path / "index").glob(f"{kind}-*")) == []
    index.optimize(sifted_from=1)
    assert "every vector is compared" in str(index.optimize())
    assert list((tmp_path / "index").glob(f"{kind}-*")) == []


def test_a_lost_sieve_is_done_without_and_a_broken_one_is_told(index, kind, tmp_path):
    index.optimize(sifted_from=1)
    query = _unit(5, 128, 1)
    plain = index.search(query)
    index.close()
    (file,) = (tmp_path / "index").glob(f"{kind}-*")
    file.write_bytes(b"broken")
    with FolderIndex.open(tmp_path / "index") as again, pytest.raises(UserError, match="run `optimize` on the index"):
        again.search(query)
    file.unlink()
    with FolderIndex.open(tmp_path / "index") as again:
        assert again.search(query) == plain
        again.optimize(sifted_from=1)
        assert again.search(query) == plain


def test_codes_from_another_machine_are_let_alone_where_they_are_slow_and_made_heads(index, tmp_path, monkeypatch):
    query = _unit(5, 128, 1)
    for place in ("sieve", "upkeep"):
        monkeypatch.setattr(f"diptych.search.{place}.quick_integers", lambda: True)
    plain = index.search(query)
    index.optimize(sifted_from=1)
    for place in ("sieve", "upkeep"):
        monkeypatch.setattr(f"diptych.search.{place}.quick_integers", lambda: False)
    monkeypatch.setattr("diptych.search.store.sifted", None)
    assert "every vector is compared" in str(index.plan())
    assert index.search(query) == plain
    assert "nearly all ruled out" in str(index.optimize(sifted_from=1))
    assert [file.name[:5] for file in (tmp_path / "index").glob("*.safetensors")] == ["heads"]
