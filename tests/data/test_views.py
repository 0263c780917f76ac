"""Views of a source: chosen rows, labels told in words, captions disturbed; what is scored stays as it is."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from diptych.core.errors import UserError
from diptych.data.noise import Noisy
from diptych.data.prompts import PROMPTS, Prompted, label_alone
from diptych.data.select import Rule, Selected
from diptych.data.source import SPLITS, Row, Source
from diptych.data.sources import open_data


class Rows(Source):
    """Rows as they are given; the picture of row i is filled with i."""

    def __init__(self, rows: list[Row]) -> None:
        self.given, self.name, self.problems = rows, "given rows", []

    def __len__(self) -> int:
        return len(self.given)

    def row(self, index: int) -> Row:
        return self.given[index]

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return np.full((2, 2, 3), index, dtype=np.uint8)

    def splits(self) -> UInt8[np.ndarray, " n"]:
        return np.array([SPLITS.index(row.split) for row in self.given], dtype=np.uint8)

    def fingerprint(self) -> str:
        return str(hash(tuple(row.key for row in self.given)))


def rows(*given: tuple[str, tuple[str, ...], dict]) -> Rows:
    return Rows([Row(f"{number}", captions, split, fields) for number, (split, captions, fields) in enumerate(given)])


MIXED = (
    ("train", ("a", "b"), {"source": ["human", "generated"]}),
    ("train", ("c",), {"source": "generated"}),
    ("dev", ("d",), {"source": "generated"}),
    ("train", ("e", "f", "g", "h"), {"source": ["generated", "human"], "good": True}),
    ("train", ("i", "j", "k"), {"source": ["generated", "human"]}),
    ("train", ("l",), {}),
    ("train", (), {"source": "human", "label": "dog"}),
)


def texts(source: Source, split: str = "train") -> list[str]:
    return ["".join(source.row(int(row)).captions) for row in source.rows(split)]


def test_only_and_exclude_choose_captions_of_training_rows():
    source = rows(*MIXED)
    only = Selected(source, [Rule.parse("source=human", wanted=True)])
    assert texts(only) == ["a", "gh", ""]
    assert texts(only, "dev") == ["d"]
    assert only.picture(2).flatten()[0] == 3, "pictures go with their rows"
    assert only.name == "given rows; training on 3 of 6 pictures (source human)"
    exclude = Selected(source, [Rule.parse("source=Generated", wanted=False)])
    assert texts(exclude) == ["a", "gh", "l", ""], "a row that does not say is not excluded"
    either = Selected(source, [Rule.parse("source = human, generated", wanted=True)])
    assert texts(either) == ["ab", "c", "efgh", "ijk", ""]
    both = Selected(source, [Rule.parse("source=human", wanted=True), Rule.parse("good=true", wanted=True)])
    assert texts(both) == ["gh"]
    prints = {one.fingerprint() for one in (source, only, exclude, either, both)}
    assert len(prints) == 5


def test_a_rule_that_cannot_be_meant_is_refused():
    source = rows(*MIXED)
    with pytest.raises(UserError, match=r"only='human' is no rule; give column=value"):
        Rule.parse("human", wanted=True)
    with pytest.raises(UserError, match=r"exclude='source=' is no rule"):
        Rule.parse("source=", wanted=False)
    with pytest.raises(UserError, match=r"unknown column 'sourc'; did you mean 'source'"):
        Selected(source, [Rule.parse("sourc=human", wanted=True)])
    with pytest.raises(UserError, match=r"nothing is left to learn from in given rows: no training row has source web"):
        Selected(source, [Rule.parse("source=web", wanted=True)])


def test_labels_alone_are_told_in_words():
    source = rows(
        ("train", (), {"label": "hot_dog"}),
        ("train", ("dog",), {"label": "dog"}),
        ("train", ("a dog runs",), {"label": "dog"}),
        ("dev", (), {"label": "hot_dog"}),
        ("train", (), {"label": 3}),
        ("train", (), {}),
        ("train", (), {"label": ["a", "b"]}),
    )
    told = Prompted(source, ("a {}.", "{}"))
    assert [row.captions for row in map(told.row, range(7))] == [
        ("a hot dog.", "hot dog"),
        ("a dog.", "dog"),
        ("a dog runs",),
        ("a hot dog.",),
        ("a 3.", "3"),
        (),
        (),
    ]
    assert told.classes() == ("3", "dog", "hot_dog")
    assert label_alone(source.row(2)) is None
    assert told.name == source.name
    assert told.fingerprint() != Prompted(source, ("{}",)).fingerprint()
    assert PROMPTS[0] == "{}", "in dev and test a class is told by its name"
    with pytest.raises(UserError, match=r"prompt 'a photo' has no \{\} for the label"):
        Prompted(source, ("a photo",))


def test_noise_is_a_share_of_the_training_rows_and_leaves_none_its_own():
    given = [("train", (f"{number}",), {}) for number in range(10)]
    source = rows(*given, ("train", (), {}), ("dev", ("d",), {}), ("test", ("t",), {}))
    noisy = Noisy(source, 0.4)
    wrong = [row for row in range(10) if noisy.row(row).captions != source.row(row).captions]
    assert len(wrong) == 4
    assert sorted(texts(noisy)) == sorted(texts(source)), "no caption is lost"
    assert texts(noisy, "dev") == ["d"]
    assert [noisy.row(row) for row in range(13)] == [Noisy(source, 0.4).row(row) for row in range(13)]
    assert texts(Noisy(source, 0.0)) == texts(source)
    assert all(noisy.row(row).key == source.row(row).key for row in range(13))


def test_a_table_may_mix_captions_and_labels(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = [["image", "caption", "class"], ["a.png", "a dog", ""], ["./a.png", "", "dog"], ["a.png", "", ""]]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    source = open_data(tmp_path / "t.csv")
    assert [problem.what for problem in source.problems] == ["the caption is empty"], "the line with neither"


def test_what_is_known_of_the_pictures_stays_known_when_only_captions_change():
    source = open_data("scenes:40")
    noisy, told = Noisy(source, 0.5), Prompted(source)
    assert noisy.fingerprint() != source.fingerprint()
    assert noisy.picture_fingerprint() == told.picture_fingerprint() == source.picture_fingerprint()
    fewer = Selected(source, [Rule.parse("label=nothing at all", wanted=False)])
    assert fewer.picture_fingerprint() == source.picture_fingerprint()
    fewer.kept = fewer.kept[:-1]
    assert fewer.picture_fingerprint() != source.picture_fingerprint()
