"""The built-in data as a source: splits, distinct captions, options."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.data.scene_graph import STYLES
from diptych.data.scene_truth import truth
from diptych.data.scenes import CLASSES, Scenes, open_scenes
from diptych.data.source import SPLITS

GOLDEN_ROW = "4a9b52e67072b554"
GOLDEN_PICTURES = "fa42b96ebe35793a"


def test_rows_are_the_same_everywhere() -> None:
    source = Scenes(pictures=40, seed=3, language="both", styles=STYLES)
    rows = [source.row(index) for index in range(len(source))]
    told = json.dumps([[row.key, row.captions, row.split, dict(row.fields)] for row in rows], ensure_ascii=False)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == GOLDEN_ROW
    pixels = b"".join(source.picture(index).tobytes() for index in range(len(source)))
    assert hashlib.sha256(pixels).hexdigest()[:16] == GOLDEN_PICTURES


def test_a_row_tells_what_the_picture_shows() -> None:
    source = Scenes(pictures=24, language="both", styles=("night", "noisy"))
    for index in range(24):
        row = source.row(index)
        assert len(row.captions) == 10
        assert all(truth(caption, row.fields) for caption in row.captions)
        assert row.split == SPLITS[source.splits()[index]]
        assert row.key.startswith(row.split)
        assert row.fields["label"] in CLASSES
        assert row.fields["style"] in ("night", "noisy")
        assert {question["language"] for question in row.fields["questions"]} == {"en", "zh"}
        assert source.scene(index).facts(64)["objects"] == row.fields["objects"]
        assert source.picture(index).shape == (64, 64, 3)


def test_splits_and_keys() -> None:
    source = Scenes(pictures=134)
    counts = np.bincount(source.splits(), minlength=3)
    assert counts.tolist() == [134 - 2 * 13, 13, 13]
    assert len({source.row(index).key for index in range(134)}) == 134
    assert np.bincount(Scenes(pictures=20_000, distinct=False).splits()).tolist() == [19_000, 500, 500]
    assert len(Scenes(pictures=3)) == 3


def test_more_pictures_leave_the_others_as_they_are() -> None:
    small, large = Scenes(pictures=50), Scenes(pictures=100)
    for split, name in enumerate(SPLITS):
        one = np.flatnonzero(small.splits() == split)[:5]
        other = np.flatnonzero(large.splits() == split)[:5]
        for i, j in zip(one.tolist(), other.tolist(), strict=True):
            assert small.row(i) == large.row(j), name
            assert (small.picture(i) == large.picture(j)).all()


def test_first_captions_are_distinct_within_a_gallery_of_500() -> None:
    source = Scenes(pictures=5000, captions=1)
    rows = np.flatnonzero(source.splits() == 2).tolist()
    assert len(rows) == len({source.row(index).captions for index in rows}) == 500


def test_two_captions_that_say_the_same_of_the_same_objects_are_not_distinct() -> None:
    source = Scenes(pictures=300, objects=(2, 2), seed=1)
    rows = np.flatnonzero(source.splits() == 2).tolist()
    seen = [(source.scene(index), source.row(index).captions[0]) for index in rows]
    for (one, caption), (other, _) in pairwise(seen):
        assert not truth(caption, other), (one, other)


def test_fewer_captions_are_the_first_ones() -> None:
    one, all_five = Scenes(pictures=20, captions=1, language="both"), Scenes(pictures=20, language="both")
    for index in range(20):
        written = all_five.row(index).captions
        assert one.row(index).captions == (written[0], written[5])
    assert "40 captions" in one.name


def test_seed_split_size_and_style_each_change_what_they_should() -> None:
    plain = Scenes(pictures=50)
    other = Scenes(pictures=50, seed=1)
    assert [plain.scene(k) for k in range(30)] != [other.scene(k) for k in range(30)]
    dev = int(np.flatnonzero(plain.splits() == 1)[0])
    assert plain.scene(0) != plain.scene(dev)
    night = Scenes(pictures=50, styles=("night",), size=32, language="zh")
    assert [scene.objects for scene in map(night.scene, range(30))] == [
        scene.objects for scene in map(plain.scene, range(30))
    ]
    assert {Scenes(pictures=50, styles=STYLES).scene(k).style for k in range(40)} == set(STYLES)


def test_fingerprint_follows_every_option() -> None:
    options = [
        {},
        {"pictures": 101},
        {"seed": 1},
        {"size": 32},
        {"language": "zh"},
        {"objects": (2, 3)},
        {"styles": ("night",)},
        {"captions": 2},
        {"distinct": False},
    ]
    prints = [Scenes(**{"pictures": 100, **option}).fingerprint() for option in options]
    assert len(set(prints)) == len(options)
    assert prints[0] == Scenes(pictures=100).fingerprint()


def test_index_out_of_range() -> None:
    source = Scenes(pictures=10)
    assert source.row(-1) == source.row(9)
    for index in (10, -11):
        with pytest.raises(IndexError, match="of 10"):
            source.row(index)


def test_open_scenes_reads_every_option() -> None:
    source = open_scenes("scenes?pictures=70&seed=4&size=48&language=zh&objects=2-3&styles=flat,night&distinct=no")
    assert (len(source), source.seed, source.size, source.language) == (70, 4, 48, "zh")
    assert (source.objects, source.styles, source.distinct) == ((2, 3), ("flat", "night"), False)
    assert open_scenes("scenes:70?objects=3").objects == (3, 3)
    assert open_scenes("scenes?pictures=70&styles=all").styles == STYLES
    assert len(open_scenes("scenes?distinct=no")) == 20_000
    assert "70 pictures" in source.name
    assert "350 captions (zh)" in source.name


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scene:20", "did you mean 'scenes'"),
        ("scenes:many", "pictures='many' is not a whole number"),
        ("scenes:0", "pictures=0 is out of range"),
        ("scenes?langage=zh", "did you mean 'language'"),
        ("scenes?language=fr", "allowed: both, en, zh"),
        ("scenes?styles=nigth", "did you mean 'night'"),
        ("scenes?styles=", "styles is empty"),
        ("scenes?objects=3-2", "objects=3-2 is not a range within 1-4"),
        ("scenes?objects=0-5", "not a range within 1-4"),
        ("scenes?objects=some", "objects='some' is not a range; give for example"),
        ("scenes?size=4", "takes? size from 16 to 2048"),
        ("scenes?captions=6", "captions=6 is out of range; scenes take captions from 1 to 5"),
        ("scenes?seed=-1", "seed=-1 is out of range"),
        ("scenes?distinct=maybe", "value of distinct 'maybe'"),
        ("scenes:10?pictures=20", "pictures is given twice"),
    ],
)
def test_mistakes_get_one_clear_line(text: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        open_scenes(text)
    assert "\n" not in str(caught.value)


def test_too_many_distinct_captions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.data.scenes._HELD_OUT", 400)
    monkeypatch.setattr("diptych.data.scenes._ATTEMPTS", 2)
    with pytest.raises(UserError, match="of 400 dev pictures got captions of their own; ask for fewer"):
        Scenes(pictures=20_000, objects=(1, 1))
    assert len(Scenes(pictures=20_000, objects=(1, 1), distinct=False)) == 20_000
