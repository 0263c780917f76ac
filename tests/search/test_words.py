from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.search.folder import FolderIndex
from diptych.search.index import Hit, fuse
from diptych.search.words import query_of, spaced

_TEXTS = ["a dog runs over snow\ndogs at play", "two cats sleep", "一只狗在雪地里跑", None, "the dog and the café"]


@pytest.fixture
def index(tmp_path):
    with FolderIndex.create(tmp_path / "index", dim=5, model="m") as made:
        made.add(list("abcde"), np.eye(5), texts=_TEXTS, metadata=[{"odd": i % 2} for i in range(5)])
        yield made


def _keys(hits: list[Hit]) -> list[str]:
    return [hit.key for hit in hits]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("dog", "ae"),
        ("DOGS!", "ae"),
        ("sleeping cat", "b"),
        ("cafe", "e"),
        ("雪地", "c"),
        ("狗", "c"),
        ("地雪", ""),
        ("dog 雪", "cae"),
        ('a "OR" NEAR( dog*', "ae"),
        ("elephant", ""),
    ],
)
def test_words_are_found(index, text, keys):
    hits = index.matching(text)
    assert sorted(_keys(hits)) == sorted(keys)
    assert all(hit.score > 0 for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_more_and_rarer_words_come_first_and_a_filter_comes_before(index):
    assert _keys(index.matching("a dog in the snow"))[0] == "a"
    assert _keys(index.matching("dog", k=1)) == ["a"]
    assert _keys(index.matching("dog cat", where={"odd": 1})) == ["b"]
    assert index.matching("dog")[0].text == _TEXTS[0]


def test_words_follow_every_write(index, tmp_path):
    index.upsert(["a"], np.ones((1, 5)), texts=["a horse"])
    index.delete(["e"])
    assert index.matching("dog") == []
    index.vacuum()
    assert _keys(index.matching("horse")) == ["a"]
    assert _keys(index.matching("cats")) == ["b"]
    index.close()
    with FolderIndex.open(tmp_path / "index", read_only=True) as reader:
        assert _keys(reader.matching("horse")) == ["a"]


def test_hybrid_joins_what_either_finds(index):
    near = np.array([0, 1.0, 0, 0.5, 0])
    assert _keys(index.search(near, k=2)[0]) == ["b", "d"]
    assert _keys(index.hybrid(near, "cat", k=2)) == ["b", "d"]
    assert index.hybrid(near, "cat", k=1)[0].score == pytest.approx(1)
    assert set(_keys(index.hybrid(near, "dog", k=3))) >= {"a", "b"}
    assert _keys(index.hybrid(near, "dog", k=5, weight=1)) == _keys(index.matching("dog"))
    assert _keys(index.hybrid(near, "dog", k=5, weight=0)) == _keys(index.search(near, k=5)[0])
    assert _keys(index.hybrid(near, "cat", k=5, where={"odd": 0})) == _keys(index.search(near, where={"odd": 0})[0])


def test_fusion_by_hand():
    a, b, c = (Hit(key, 0.5, {}, None) for key in "abc")
    found = fuse([a, b], [c, b], k=3, weight=0.25)
    assert [(hit.key, hit.score) for hit in found] == [
        ("b", pytest.approx(61 / 62)),
        ("a", pytest.approx(0.75)),
        ("c", pytest.approx(0.25)),
    ]


def test_what_cannot_be_looked_for(index):
    with pytest.raises(UserError, match=r"no word to look for in '\?!'"):
        index.matching("?!")
    with pytest.raises(UserError, match="cannot look for the 0 nearest"):
        index.matching("dog", k=0)
    with pytest.raises(UserError, match=r"cannot weigh 1\.5: give a number from 0"):
        index.hybrid(np.ones(5), "dog", weight=1.5)


def test_queries_and_texts_are_cut_alike():
    assert spaced("a狗b") == "a 狗 b"
    assert query_of("Two dogs, 雪地里 two") == '"two" OR "dogs" OR "雪 地" OR "地 里"'


def test_an_index_of_format_1_is_searched_as_it_is_and_renewed_when_written_to(index, tmp_path):
    index.close()
    folder = tmp_path / "index"
    header = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(header | {"format": 1}))
    with sqlite3.connect(folder / "rows.sqlite") as table:
        table.execute("DROP TABLE words")
        table.execute("DELETE FROM facts WHERE name = 'codes'")
    table.close()
    with FolderIndex.open(folder, read_only=True) as old:
        assert _keys(old.search(np.eye(5)[1], k=1)[0]) == ["b"]
        with pytest.raises(UserError, match="made before search by words: open it once for writing"):
            old.matching("dog")
    with FolderIndex.open(folder) as renewed:
        assert sorted(_keys(renewed.matching("dog"))) == ["a", "e"]
    assert json.loads((folder / "index.json").read_text())["format"] == 2
