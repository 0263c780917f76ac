"""Captions, their truth, and questions of the built-in scenes."""

from __future__ import annotations

import pytest

from diptych.data.scene_captions import CAPTIONS, write_captions
from diptych.data.scene_graph import COLOURS, INVERSE, draw_scene
from diptych.data.scene_questions import KINDS, answers, questions
from diptych.data.scene_random import Dice, key
from diptych.data.scene_shapes import SHAPES
from diptych.data.scene_truth import parse, truth
from diptych.data.scene_words import LEXICONS, language_of


def thing(look: str, place: str) -> dict[str, object]:
    size, colour, shape = look.split()
    return {"size": size, "colour": colour, "shape": shape, "place": place, "box": [0, 0, 1, 1]}


SCENE = {
    "objects": [
        thing("large red circle", "top left"),
        thing("small blue square", "right"),
        thing("small red star", "bottom left"),
        thing("small red circle", "bottom right"),
    ],
    "relations": [
        *([0, "left of", 1], [1, "right of", 0], [0, "above", 2], [2, "below", 0]),
        *([0, "left of", 3], [3, "right of", 0], [0, "above", 3], [3, "below", 0]),
        *([2, "left of", 1], [1, "right of", 2], [2, "left of", 3], [3, "right of", 2]),
        *([1, "above", 3], [3, "below", 1]),
    ],
}


@pytest.mark.parametrize(
    "caption",
    [
        "a red circle",
        "A big red disc.",
        "the picture shows a star",
        "a red circle and a small red circle",
        "two circles",
        "three red shapes and a blue square",
        "four shapes: two circles, a star and a box",
        "a red circle left of a blue square",
        "the red circle is to the left of the blue square",
        "to the right of the star there is a blue square",
        "a large red circle to the left of a blue square and above a star",
        "a large red circle left of a blue square, and a small star left of a small circle",
        "a star in the bottom left, and a square on the right",
        "a star on the left",
        "on the right there is a square",
        "no green shapes",
        "one star",
        "an object",
        "a circle above a circle",
        "图中有一个红色圆形",
        "红色的大圆形",
        "两个圆形",
        "四个图形：两个圆形、一个五角星和一个方块",
        "一个红色圆形在一个蓝色正方形的左边",
        "一个大的红色圆形位于一个蓝色正方形左边，位于一个星形的上方",
        "蓝色正方形的左边有一个红色圆形",
        "左上角有一个红色圆形，一个星形在左下角",
        "星形在画面左侧",
        "没有绿色图形",
        "一个红圆在一个红圆的上面",
    ],
)
def test_true_captions(caption: str) -> None:
    assert parse(caption) is not None
    assert truth(caption, SCENE)


@pytest.mark.parametrize(
    "caption",
    [
        "a blue circle",
        "a large star",
        "two stars",
        "a circle, a circle and a circle",
        "one circle",
        "two red shapes",
        "three shapes: two circles and a star",
        "a red circle right of a star and left of a star",
        "a blue square left of a red circle",
        "the blue square is above the star",
        "below the large circle there is a blue square",
        "a large red circle left of a blue square, and a star above a small circle",
        "a star in the top left",
        "a star in the middle",
        "no red shapes",
        "一个蓝色圆形",
        "三个圆形",
        "一个蓝色正方形在一个红色圆形的左边",
        "星形的左边有一个圆形",
        "右上角有一个圆形",
        "没有圆形",
    ],
)
def test_false_captions(caption: str) -> None:
    assert parse(caption) is not None
    assert not truth(caption, SCENE)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "  ",
        "and",
        "a red",
        "a red dog",
        "redcircle",
        "a red blue circle",
        "a circle left of",
        "left of a circle",
        "a circle a square",
        "on the left",
        "the the",
        "红色",
        "圆形在正方形",
        "圆形的左边",
        "圆形左边左边",
        "狗",
        "a red circle 在左上角",
    ],
)
def test_what_is_not_understood_is_not_true(caption: str) -> None:
    assert parse(caption) is None
    assert not truth(caption, SCENE)


def test_parse_gives_the_meaning() -> None:
    meaning = parse("to the left of the blue square there is a large star")
    assert meaning is not None
    assert [mention.properties for mention in meaning.mentions] == [
        {"colour": "blue", "shape": "square"},
        {"size": "large", "shape": "star"},
    ]
    assert [mention.definite for mention in meaning.mentions] == [True, False]
    assert meaning.relations == [(1, "left of", 0)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_are_true_several_and_in_their_language(language: str) -> None:
    wordings = set()
    for k in range(120):
        scene = draw_scene(Dice(1, k), objects=(1, 4))
        written = write_captions(scene, language=language, stream=key(2, k))
        assert len(written) == CAPTIONS
        assert all(truth(caption, scene) for caption in written), (written, scene)
        assert {language_of(caption) for caption in written} == {language}
        wordings.update(written)
    assert len(wordings) > 450


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_first_caption_tells_every_object_with_every_property(language: str) -> None:
    for k in range(80):
        scene = draw_scene(Dice(3, k), objects=(1, 4))
        meaning = parse(write_captions(scene, language=language, stream=k)[0])
        assert meaning is not None
        told = sorted(sorted(mention.properties.items()) for mention in meaning.mentions)
        there = [{"colour": one.colour, "shape": one.shape, "size": one.size} for one in scene.objects]
        assert told == sorted(sorted(one.items()) for one in there)
        assert len(meaning.relations) == (0, 1, 2, 2)[len(scene.objects) - 1]
        assert len(meaning.places) == (len(scene.objects) == 1)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_caption_with_one_word_changed_is_false(language: str) -> None:
    lexicon = LEXICONS[language]
    for k in range(80):
        scene = draw_scene(Dice(4, k), objects=(2, 2))
        caption = write_captions(scene, language=language, stream=k)[0]
        ((_, relation, _),) = parse(caption).relations
        turned = caption.replace(lexicon.relations[relation][0], lexicon.relations[INVERSE[relation]][0])
        assert not truth(turned, scene)
        absent = next(colour for colour in COLOURS if all(one.colour != colour for one in scene.objects))
        old, new = lexicon.colours[scene.objects[0].colour][0], lexicon.colours[absent][0]
        assert not truth(caption.replace(old, new), scene)


def test_captions_are_rarely_true_of_another_scene() -> None:
    drawn = [draw_scene(Dice(5, k), objects=(2, 4)) for k in range(40)]
    first = [write_captions(scene, language="en", stream=k)[0] for k, scene in enumerate(drawn)]
    true = sum(truth(caption, scene) for caption in first for scene in drawn)
    assert len(drawn) <= true <= 1.1 * len(drawn)  # a scene may hold all that a smaller one does


def look(meaning, mention: int) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(meaning.mentions[mention].properties.items()))


def test_both_languages_say_the_same() -> None:
    for k in range(60):
        scene = draw_scene(Dice(6, k), objects=(1, 4))
        english, chinese = (write_captions(scene, language=language, stream=k) for language in ("en", "zh"))
        for one, other in zip(english, chinese, strict=True):
            meanings = [parse(one), parse(other)]
            said = [
                sorted((*look(meaning, i), relation, *look(meaning, j)) for i, relation, j in meaning.relations)
                for meaning in meanings
            ]
            assert said[0] == said[1]
            properties = [[sorted(mention.properties.items()) for mention in meaning.mentions] for meaning in meanings]
            assert sorted(properties[0]) == sorted(properties[1])
            assert sorted(place for _, place in meanings[0].places) == sorted(place for _, place in meanings[1].places)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_form_of_every_word_is_read_back(language: str) -> None:
    lexicon = LEXICONS[language]
    for kind, forms in (("shape", lexicon.shapes), ("colour", lexicon.colours), ("size", lexicon.sizes)):
        for name, words in forms.items():
            for word in words:
                noun = "" if kind == "shape" else f" {lexicon.nouns[0]}"
                meaning = parse(f"{lexicon.one[-1]} {word}{noun}")
                assert meaning is not None
                assert meaning.mentions[0].properties == {kind: name}


def answer(question: dict[str, str], objects: list[dict[str, str]]) -> str:
    """Answer an English question by counting, with no help from the code under test."""
    words = question["question"].rstrip("?").split()
    known = {"colour": COLOURS, "shape": SHAPES, "size": ("large", "small")}
    if question["kind"] == "size":
        words = words[: words.index("or") - 1]
    asked = {
        kind: name for kind, names in known.items() for name in names if {name, f"{name}s", f"{name}es"} & {*words}
    }
    fitting = [one for one in objects if all(one[kind] == word for kind, word in asked.items())]
    if question["kind"] == "count":
        return str(len(fitting))
    if question["kind"] == "exists":
        return "yes" if fitting else "no"
    assert len(fitting) == 1
    return fitting[0][question["kind"]]


def test_answers_are_right_and_unambiguous() -> None:
    seen = {kind: set() for kind in KINDS}
    for k in range(160):
        scene = draw_scene(Dice(7, k), objects=(1, 4))
        objects = scene.facts()["objects"]
        for question in questions(scene, language="en", stream=k):
            seen[question["kind"]].add(question["answer"])
            if question["kind"] == "relation":
                said = question["question"].removeprefix("is ").rstrip("?")
                for relation in INVERSE:
                    said = said.replace(f" {relation} ", f" is {relation} ")
                assert truth(said, scene) == (question["answer"] == "yes")
            else:
                assert question["answer"] == answer(question, objects), question
    assert seen["colour"] == set(COLOURS)
    assert seen["shape"] == set(SHAPES)
    assert seen["size"] == {"large", "small"}
    assert seen["count"] >= {"0", "1", "2", "3"}
    assert set.union(*seen.values()) <= set(answers("en"))


def test_yes_is_as_frequent_as_no_and_both_languages_agree() -> None:
    yes = {"exists": [], "relation": []}
    pairs = dict(zip(answers("en"), answers("zh"), strict=True))
    for k in range(300):
        scene = draw_scene(Dice(8, k), objects=(1, 4))
        english, chinese = (questions(scene, language=language, stream=k) for language in ("en", "zh"))
        for one, other in zip(english, chinese, strict=True):
            assert (one["kind"], pairs[one["answer"]]) == (other["kind"], other["answer"])
            assert language_of(other["question"]) == "zh"
            if one["kind"] in yes:
                yes[one["kind"]].append(one["answer"] == "yes")
    for given in yes.values():
        assert 0.4 < sum(given) / len(given) < 0.6  # standard error 0.03
