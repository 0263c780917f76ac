"""Every store of an index does the same: these tests run on a folder and on really started servers."""

from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest
import torch

from diptych.core.errors import UserError
from diptych.search.index import Hit, Index
from diptych.search.opening import index_there, make_index, open_index, run_in

KINDS = ["folder", "milvus", "postgresql"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def address(kind, tmp_path, request) -> str:
    if kind == "folder":
        return str(tmp_path / "index")
    return request.getfixturevalue(kind) % f"i{uuid.uuid4().hex[:12]}"


@pytest.fixture
def index(address) -> Index:
    with make_index(address, dim=3, model="clip-1", run="runs/mine") as made:
        yield made


def _fill(index: Index) -> None:
    index.add(
        ["x", "y", "z", "xy"],
        np.array([[2.0, 0, 0], [0, 3, 0], [0, 0, 0.5], [1, 1, 0]]),
        metadata=[
            {"split": "train", "year": 1999, "tags": ["a", "b"], "good": True},
            {"split": "test", "year": 2005.5, "tags": ["b"], "good": False},
            {"split": "test", "year": "unknown", "tags": []},
            {"split": "dev", "year": None, 'od"d': 1, "自然": "山"},
        ],
        texts=["along x", None, "along z", "沿对角线"],
    )


def _found(index: Index, vector: list[float], **kwargs) -> list[str]:
    return [hit.key for hit in index.search(np.array(vector), **kwargs)[0]]


def test_search_gives_the_nearest_with_all_that_was_stored(index):
    _fill(index)
    (hits,) = index.search(np.array([4.0, 0, 0]), k=3)
    assert [(hit.key, hit.score) for hit in hits[:2]] == [("x", 1.0), ("xy", pytest.approx(0.5**0.5))]
    assert hits[0].metadata == {"split": "train", "year": 1999, "tags": ["a", "b"], "good": True}
    assert (hits[0].text, hits[1].text) == ("along x", "沿对角线")
    assert [hit.key for hit in hits[2:]] == ["y"]  # y and z score 0 both: insertion decides
    assert len(index) == 4


def test_batches_tensors_and_single_vectors_give_the_same(index):
    _fill(index)
    queries = torch.tensor([[1.0, 0.2, 0], [0, 0.3, 1]], requires_grad=True)
    batch = index.search(queries, k=2)
    assert [[hit.key for hit in hits] for hits in batch] == [["x", "xy"], ["z", "y"]]
    assert index.search(queries[1], k=2) == [batch[1]]
    assert index.search(queries.detach().numpy().astype(np.float16)[0], k=1)[0][0].key == "x"
    assert index.search(queries.bfloat16(), k=1)[1][0].key == "z"


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ({}, ["x", "y", "z", "xy"]),
        ({"split": "test"}, ["y", "z"]),
        ({"split": ["train", "dev"]}, ["x", "xy"]),
        ({"split": ("train",), "year": 1999}, ["x"]),
        ({"split": []}, []),
        ({"year": {">=": 1999}}, ["x", "y"]),
        ({"year": {">": 1999, "<": 2006}}, ["y"]),
        ({"year": {"<=": 1999}}, ["x"]),
        ({"year": {">": "a"}}, ["z"]),
        ({"year": None}, ["xy"]),
        ({"good": None}, ["z", "xy"]),
        ({"good": True}, ["x"]),
        ({"good": False}, ["y"]),
        ({"tags": "b"}, ["x", "y"]),
        ({"tags": ["a", "c"]}, ["x"]),
        ({"自然": "山"}, ["xy"]),
        ({"split": "TEST"}, []),
    ],
)
def test_filters(index, where, keys):
    _fill(index)
    assert index.keys(where) == keys
    assert index.count(where) == len(keys)
    assert sorted(_found(index, [1, 1, 1], where=where)) == sorted(keys)


def test_a_filter_is_applied_before_the_best_are_taken(index):
    index.add(
        [str(i) for i in range(200)],
        np.array([[1.0, i / 100, 0] for i in range(200)]),
        metadata=[{"far": i >= 195} for i in range(200)],
    )
    assert _found(index, [1, 0, 0], k=3, where={"far": True}) == ["195", "196", "197"]


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ({"splt": "test"}, "unknown field of the metadata 'splt'; did you mean 'split'"),
        ({"year": {"=>": 3}}, "unknown comparison in the filter on 'year' '=>'.*allowed: <, <=, >, >="),
        ({"year": {">": True}}, "cannot compare 'year' with True"),
        ({"year": {">": None}}, "cannot compare 'year' with None"),
        ({"split": [["test"]]}, r"cannot filter 'split' by \['test'\]"),
        ({"split": object()}, "cannot filter 'split' by"),
        ({'od"d': 1}, "double quote"),
    ],
)
def test_bad_filters_are_told(index, where, line):
    _fill(index)
    with pytest.raises(UserError, match=line):
        index.search(np.ones(3), where=where)


def test_upsert_replaces_whole_and_counts_as_new(index):
    _fill(index)
    index.upsert(["x", "new"], np.array([[0, 0, 1.0], [0, 0, 2]]), metadata=[{"split": "test"}, {}])
    assert index.keys() == ["y", "z", "xy", "x", "new"]
    assert _found(index, [0, 0, 1], k=3) == ["z", "x", "new"]
    (item,) = index.get(["x"])
    assert (item.metadata, item.text, item.vector.tolist()) == ({"split": "test"}, None, [0, 0, 1])


def test_delete_and_get(index):
    _fill(index)
    assert index.delete(["y", "nobody"]) == 1
    assert index.delete([]) == 0
    assert _found(index, [0, 1, 0], k=9) == ["xy", "x", "z"]
    assert [item.key for item in index.get(["xy", "x"])] == ["xy", "x"]
    with pytest.raises(UserError, match=r"the key 'y' \(and 1 more\) is not in the index"):
        index.get(["x", "y", "w"])
    index.add(["y"], np.array([0, 1.0, 0]))
    assert index.keys() == ["x", "z", "xy", "y"]


@pytest.mark.parametrize(
    ("keys", "vectors", "kwargs", "line"),
    [
        (["x"], np.ones((1, 3)), {}, "the key 'x' is already in the index: use upsert"),
        (["a", "b", "a"], np.ones((3, 3)), {}, "the key 'a' is given twice"),
        (["a"], np.ones((1, 4)), {}, r"shape \(1, 4\) do not fit: this index holds vectors of 3"),
        (["a"], np.ones((1, 3, 1)), {}, "do not fit"),
        (["a", "b"], np.ones((1, 3)), {}, "1 vectors were given for 2 keys"),
        (["a", "b"], np.array([[1, 0, 0], [1, np.nan, 0]]), {}, "the vector of 'b' holds NaN or infinity"),
        (["a", "b"], np.array([[1, 0, 0], [0, 0, 0]]), {}, "the vector of 'b' is all zeros"),
        (["a"], np.ones((1, 3)), {"metadata": []}, "0 metadata were given for 1 keys"),
        (["a"], np.ones((1, 3)), {"texts": ["t", "u"]}, "2 texts were given for 1 keys"),
        (["a"], np.ones((1, 3)), {"metadata": [{"when": object()}]}, "the metadata of 'a' is not JSON"),
        (["a"], np.ones((1, 3)), {"metadata": [{"size": float("nan")}]}, "the metadata of 'a' is not JSON"),
        (["a\udcff"], np.ones((1, 3)), {}, "half a character"),
        (["a\0"], np.ones((1, 3)), {}, "zero byte"),
    ],
)
def test_bad_items_are_told_and_nothing_is_stored(index, keys, vectors, kwargs, line):
    _fill(index)
    with pytest.raises(UserError, match=line):
        index.add(keys, vectors, **kwargs)
    assert index.keys() == ["x", "y", "z", "xy"]


@pytest.mark.parametrize(
    ("query", "k", "line"),
    [
        (np.ones(4), 1, "this index holds vectors of 3 numbers"),
        (np.array([1.0, np.inf, 0]), 1, "the vector of query 0 holds NaN or infinity"),
        (np.zeros((2, 3)), 1, "the vector of query 0 is all zeros"),
        (np.ones(3), 0, "cannot look for the 0 nearest"),
    ],
)
def test_bad_queries_are_told(index, query, k, line):
    _fill(index)
    with pytest.raises(UserError, match=line):
        index.search(query, k=k)


def _random(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 3))


def _fill_many(index: Index) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.integers(-3, 4, (600, 3)) + np.array([0.5, 0.25, 4])  # few values: many ties
    notes = [{"group": int(g), "tags": [f"t{g}", "all"]} for g in rng.integers(0, 5, 600)]
    index.add([f"k{i}" for i in range(600)], vectors, metadata=notes, texts=[f"number {i}" for i in range(600)])
    index.upsert([f"k{i}" for i in range(0, 600, 7)], vectors[::7] * [1, -1, 1])
    index.delete([f"k{i}" for i in range(0, 600, 11)])


def test_hits_are_those_of_a_folder_to_the_last_digit(index, tmp_path):
    _fill_many(index)
    query = _random(20, 1)
    with make_index(tmp_path / "other", dim=3, model="clip-1", run="runs/mine") as folder:
        _fill_many(folder)
        for where in (None, {"group": [1, 3]}, {"tags": "t2"}, {"group": {">": 1, "<=": 3}}, {"group": None}):
            assert index.keys(where) == folder.keys(where)
            found, expected = index.search(query, k=12, where=where), folder.search(query, k=12, where=where)
            assert [[h.score for h in hits] for hits in found] == [[h.score for h in hits] for hits in expected]
            for ours, its in zip(found, expected, strict=True):
                last = its[-1].score  # a server takes any of those that are equal at the end
                assert [h for h in ours if h.score > last] == [h for h in its if h.score > last]


def test_everything_is_there_for_another_client_and_when_opened_again(index, address, kind):
    _fill(index)
    with open_index(address, model="clip-1", read_only=True) as other:
        assert other.keys() == ["x", "y", "z", "xy"]
        index.upsert(["x", "late"], np.eye(3)[:2])
        index.delete(["y"])
        assert other.keys() == ["z", "xy", "x", "late"]
        assert _found(other, [0, 1, 0], k=1) == ["late"]
        new = np.ones((1, 3))
        for refused in (lambda: other.delete(["x"]), lambda: other.optimize(), lambda: other.add(["q"], new)):
            with pytest.raises(UserError, match="is open read-only: open it without read_only to change it"):
                refused()
    before = index.search(np.eye(3), k=4)
    index.close()
    with open_index(address, model="clip-1") as again:
        assert (again.dim, again.model, len(again)) == (3, "clip-1", 4)
        assert again.search(np.eye(3), k=4) == before
    assert run_in(address) == "runs/mine"


def test_two_clients_may_write_to_a_server(index, address, kind):
    if kind == "folder":
        pytest.skip("a folder has one writer at a time")
    with open_index(address) as other:
        index.add(["a"], np.ones((1, 3)))
        other.add(["b"], np.ones((1, 3)))
        index.upsert(["b", "c"], np.eye(3)[:2])
        assert index.keys() == other.keys() == ["a", "b", "c"]
        with pytest.raises(UserError, match="the key 'c' is already in the index"):
            other.add(["c"], np.ones((1, 3)))


def test_threads_share_an_index(index):
    _fill_many(index)
    query = _random(8, 2)
    expected, found = index.search(query, k=5), {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: index.search(query, k=5)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), expected)


def test_words_are_found_and_weighed_with_vectors(index):
    texts = ["a dog runs over snow\ndogs at play", "two cats sleep", "一只狗在雪地里跑", None, "the dog and the café"]
    index.add(list("abcde"), _random(5, 3), texts=texts, metadata=[{"odd": i % 2} for i in range(5)])
    assert sorted(hit.key for hit in index.matching("dog!")) == ["a", "e"]
    assert [hit.key for hit in index.matching("cats", where={"odd": 1})] == ["b"]
    assert index.matching("雪地")[0].key == "c"
    assert index.matching("elephant") == index.matching("dog", where={"odd": 1}) == []
    assert index.matching("dog")[0].text in texts
    first, second = index.matching("dog")
    assert first.score >= second.score > 0
    near = index.get(["b"])[0].vector
    assert index.hybrid(near, "two cats", k=1) == [Hit("b", 1.0, {"odd": 1}, "two cats sleep")]
    assert {"a", "b", "e"} <= {hit.key for hit in index.hybrid(near, "dog", k=5)}
    with pytest.raises(UserError, match=r"no word to look for in '\?!'"):
        index.matching("?!")
    with pytest.raises(UserError, match="cannot look for the 0 nearest"):
        index.matching("dog", k=0)


def test_an_empty_index_works(index):
    assert index.search(np.eye(3)) == [[], [], []]
    assert index.search(np.eye(3), where={"any": 1}) == [[], [], []]
    assert (index.keys(), index.count(), index.delete(["a"]), index.get([])) == ([], 0, 0, [])
    index.add([], np.empty((0, 3)))
    assert index.plan().kind == index.optimize().kind == "exact"
    assert str(index.plan()).startswith("exact search over 0 vectors")


def test_another_model_and_what_is_there_already_are_refused(index, address):
    index.close()
    with pytest.raises(UserError, match="of the model 'clip-1', which cannot be compared with those of 'clip-2'"):
        open_index(address, model="clip-2")
    assert index_there(address)
    with pytest.raises(UserError, match="already holds"):
        make_index(address, dim=3, model="m", run="r")
    other = address.replace("/i", "/j")
    assert not index_there(other)
    with pytest.raises(UserError, match="is not there; make one with `diptych index`"):
        open_index(other)


@pytest.mark.slow
def test_a_server_makes_a_graph_with_its_recall_measured(index, kind):
    if kind == "folder":
        pytest.skip("see test_graph")
    index.add([f"k{i}" for i in range(3000)], _random(3000, 4), metadata=[{"rare": i % 500 == 0} for i in range(3000)])
    query = _random(20, 6)
    plain = index.search(query)
    plan = index.optimize(approximate_from=1000)
    assert plan.kind == "approximate"
    assert plan.recall >= 0.99
    assert index.plan() == plan
    found = index.search(query)
    assert sum(len(set(a) & set(b)) for a, b in zip(map(_keys, found), map(_keys, plain), strict=True)) >= 0.95 * 200
    assert len(index.search(query[0], where={"rare": True})[0]) == 6
    index.add(["late"], query[:1])
    assert index.search(query[0], k=1)[0][0].key == "late"
    if kind == "milvus":
        with pytest.raises(UserError, match="by which Milvus cannot search exactly"):
            index.search(query, exact=True)
    else:
        assert [h.key for h in index.search(query, exact=True)[1]] == _keys(plain[1])
    assert index.optimize().kind == "exact"
    assert _keys(index.search(query)[1]) == _keys(plain[1])
    assert "would find only" in str(index.optimize(approximate_from=1000, recall=1.1))
    assert index.plan().kind == "exact"


def _keys(hits: list[Hit]) -> list[str]:
    return [hit.key for hit in hits]


def test_long_vectors_and_odd_texts(address, kind):
    with make_index(address, dim=3000, model="m", run="r") as index:
        vectors = np.random.default_rng(0).standard_normal((4, 3000))
        odd = {"quote'": "a 'b' \\ \"c\" %s {} -- ;", "nested": {"a": [1, {"b": None}]}, "big": 2**53, "tiny": 1e-300}
        keys, text = ["a'b", 'c"d', "e\\f", "%s"], 'it\'s a "dog" & | ! : * <-> %s'
        index.add(keys, vectors, metadata=[odd] * 4, texts=[text] * 4)
        assert [hits[0].key for hits in index.search(vectors)] == keys
        assert index.get(["%s"])[0].metadata == odd
        assert len(index.matching(text)) == 4
        assert index.keys({"quote'": odd["quote'"]}) == keys
        assert index.delete(keys[:3]) == 3


def test_what_a_server_cannot_take_is_told(index, kind):
    if kind == "folder":
        pytest.skip("a folder takes all that is text")
    line = {
        "milvus": "is longer than Milvus takes, 65,535 bytes: cut it",
        "postgresql": "says .*; nothing was changed",
    }[kind]
    with pytest.raises(UserError, match=line):
        index.add(["".join(map(str, range(20_000)))], np.ones((1, 3)))
    assert len(index) == 0
