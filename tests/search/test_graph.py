from __future__ import annotations

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.search import folder as folder_module
from diptych.search import store as store_module
from diptych.search.folder import FolderIndex

pytest.importorskip("faiss")


def _clustered(rows: int, seed: int, dim: int = 32) -> np.ndarray:
    """Draw vectors around 40 common centres."""
    centres = np.random.default_rng(0).standard_normal((40, dim))
    rng = np.random.default_rng(seed)
    return centres[rng.integers(0, 40, rows)] + 0.6 * rng.standard_normal((rows, dim))


@pytest.fixture
def index(tmp_path) -> FolderIndex:
    made = FolderIndex.create(tmp_path / "index", dim=32, model="m")
    made.add([f"{i}" for i in range(4000)], _clustered(4000, 1), metadata=[{"odd": i % 2 == 1} for i in range(4000)])
    yield made
    made.close()


def _recall(index: FolderIndex, query: np.ndarray, **kwargs) -> float:
    pairs = zip(index.search(query, **kwargs), index.search(query, exact=True, **kwargs), strict=True)
    return float(np.mean([len({h.key for h in a} & {h.key for h in b}) / len(b) for a, b in pairs]))


def test_below_the_size_search_stays_exact(index):
    plan = index.optimize()
    assert (plan.kind, plan.vectors, plan.recall) == ("exact", 4000, None)
    assert str(plan) == "exact search over 4,000 vectors: every vector is compared"


def test_from_the_size_on_search_is_approximate_with_its_recall_measured_and_kept(index, tmp_path):
    plan = index.optimize(approximate_from=4000)
    assert plan.kind == "approximate"
    assert plan.recall >= 0.95
    assert index.plan() == plan
    query = _clustered(100, 2)
    assert _recall(index, query) >= 0.95
    assert _recall(index, query, where={"odd": True}) >= 0.95
    assert all(int(hit.key) % 2 for hits in index.search(query, where={"odd": True}) for hit in hits)
    index.close()
    with FolderIndex.open(tmp_path / "index", read_only=True) as reader:
        assert reader.plan() == plan
        assert _recall(reader, query) >= 0.95


def test_approximate_scores_are_the_exact_ones(index):
    query = _clustered(20, 3)
    exact = [{hit.key: hit.score for hit in hits} for hits in index.search(query, k=100)]
    index.optimize(approximate_from=1)
    for hits, right in zip(index.search(query, k=5), exact, strict=True):
        assert [right[hit.key] for hit in hits] == [hit.score for hit in hits]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_later_writes_are_seen_at_once(index, tmp_path):
    index.optimize(approximate_from=1)
    query = _clustered(1, 4)
    index.add(["late"], query)
    assert index.search(query, k=1)[0][0].key == "late"
    assert "1 later ones exactly" in str(index.plan())
    index.delete(["late"])
    assert "late" not in [hit.key for hit in index.search(query, k=50)[0]]
    nearest = index.search(query, k=1)[0][0].key
    index.upsert([nearest], -query)
    assert index.search(query, k=1)[0][0].key != nearest
    index.optimize(approximate_from=1)
    assert "later" not in str(index.plan())
    assert len(list((tmp_path / "index").glob("graph-*"))) == 1
    index.vacuum()
    assert index.plan().kind == "exact"
    assert list((tmp_path / "index").glob("graph-*")) == []
    assert index.optimize(approximate_from=1).kind == "approximate"
    assert _recall(index, _clustered(50, 5)) >= 0.95


def test_narrow_filters_and_very_many_results_are_answered_in_full(index):
    index.optimize(approximate_from=1)
    index.upsert(["7", "8"], _clustered(2, 9), metadata=[{"rare": 1}, {"rare": 1}])
    assert sorted(hit.key for hit in index.search(_clustered(1, 6), where={"rare": 1})[0]) == ["7", "8"]
    assert len(index.search(_clustered(1, 6), k=4000)[0]) == 4000


def test_a_recall_that_is_not_reached_leaves_search_exact(index, tmp_path):
    plan = index.optimize(approximate_from=1, recall=1.1)
    assert plan.kind == "exact"
    assert "would find only" in str(plan)
    assert list((tmp_path / "index").glob("graph-*")) == []


def test_without_faiss_search_stays_exact_and_says_so(index, monkeypatch):
    query = _clustered(5, 7)
    exact = index.search(query)
    index.optimize(approximate_from=1)
    for module in (folder_module, store_module):
        monkeypatch.setattr(module, "installed", lambda: False)
    assert index.plan().kind == "exact"
    assert "faiss is not installed (pip install 'diptych[search]'" in str(index.plan())
    assert index.search(query) == exact
    assert "faiss is not installed" in str(index.optimize(approximate_from=1))


def test_a_lost_graph_is_done_without_and_a_broken_one_is_told(index, tmp_path):
    index.optimize(approximate_from=1)
    exact = index.search(_clustered(5, 8), exact=True)
    index.close()
    (graph,) = (tmp_path / "index").glob("graph-*")
    graph.write_bytes(b"broken")
    with FolderIndex.open(tmp_path / "index") as again, pytest.raises(UserError, match="run `optimize` on the index"):
        again.search(_clustered(5, 8))
    graph.unlink()
    with FolderIndex.open(tmp_path / "index") as again:
        assert again.search(_clustered(5, 8)) == exact
