"""Questions in the columns of a table and in the built-in scenes, whatever form their answers have."""

import json

import numpy as np
import pytest
from PIL import Image

from diptych.core.errors import UserError
from diptych.data.questions import Asked, Asking, Questions, answer_texts, kind_of, read_asked
from diptych.data.scenes import open_scenes
from diptych.data.sources import open_data


@pytest.fixture
def asked_table(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    lines = [
        {"image": "0.png", "question": "what is this?", "answers": ["Lamp", "table"], "split": "train"},
        {"image": "0.png", "question": "how many are there?", "answers": ["2"], "split": "train"},
        {"image": "1.png", "question": "what colour is it?", "answers": ["red"], "split": "dev"},
        {"image": "2.png", "question": "is it  red?", "answers": ["yes"], "split": "test"},
    ]
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_each_line_is_a_question_about_its_picture(asked_table):
    source = Questions(open_data(asked_table), Asking())
    assert source.asked(0) == (
        Asked("what is this?", ("lamp", "table"), "other"),
        Asked("how many are there?", ("2",), "count"),
    )
    assert source.row(0).captions == ("what is this?", "how many are there?")
    assert [one.kind for row in range(3) for one in source.asked(row)] == ["other", "count", "colour", "yes or no"]
    assert source.asked(2)[0].question == "is it red?"
    assert source.picture_fingerprint() == open_data(asked_table).picture_fingerprint()


def test_several_answers_are_several_people_or_one_answer(asked_table):
    one = Questions(open_data(asked_table), Asking()).asked(0)[0]
    assert one.answer == "lamp", "of equals the one that was given first"
    assert Questions(open_data(asked_table), Asking(together=True)).asked(0)[0].answers == ("lamp, table",)
    assert Asked("?", ("a", "b", "b"), "").answer == "b"
    assert Asked("?", (), "").answer == ""


def test_lines_of_people_who_answered_the_same_question():
    fields = {"question": "what?", "answer": ["red", "red", "blue"], "kind": "colour"}
    assert read_asked(fields, Asking()) == [Asked("what?", ("red", "red", "blue"), "colour")]
    shared = {"question": ["what?", "where?"], "answer": "red", "question_type": ["a", None]}
    assert read_asked(shared, Asking()) == [Asked("what?", ("red",), "a"), Asked("where?", ("red",), "place")]


def test_a_question_without_an_answer_is_none():
    assert read_asked({"question": ["what?", None, "who?"], "answers": [["a"], ["b"], []]}, Asking()) == [
        Asked("what?", ("a",), "other")
    ]
    assert read_asked({"caption": "a dog"}, Asking()) == []


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Yes ", ("yes",)),
        (3, ("3",)),
        (["a", " B"], ("a", "b")),
        ('["x", "y"]', ("x", "y")),
        ("[odd", ("[odd",)),
        ([{"answer": "net", "answer_id": 1}, {"answer": "nets"}], ("net", "nets")),
        (None, ()),
        ("", ()),
        ([], ()),
    ],
)
def test_answers_in_every_form(value, texts):
    assert answer_texts(value) == texts


def test_kinds_are_guessed_by_the_words():
    asked = [("How many chairs?", "2"), ("what color is it", "red"), ("is it red?", "no"), ("where is it?", "left")]
    assert [kind_of(*one) for one in asked] == ["count", "colour", "yes or no", "place"]
    assert kind_of("what is it?", "dog") == "other"


def test_scenes_ask_one_question_of_each_kind():
    source = Questions(open_scenes("scenes:50"), Asking())
    kinds = {one.kind for row in range(50) for one in source.asked(row)}
    assert kinds == {"colour", "shape", "size", "count", "exists", "relation"}
    assert source.asked(0) == Questions(open_scenes("scenes:50"), Asking()).asked(0)


def test_named_columns_are_used_and_wrong_ones_refused(asked_table):
    with pytest.raises(UserError, match="there is no column 'questions'; did you mean 'question'"):
        Questions(open_data(asked_table), Asking(question="questions"))
    named = Questions(open_data(asked_table), Asking(question="question", answer="question", kind="answers"))
    assert named.asked(1)[0].answer == "what colour is it?"


def test_data_without_questions_say_which_columns_there_are(table):
    with pytest.raises(UserError, match=r"no questions with answers.*question_column=.*columns: label"):
        Questions(open_data(table), Asking())
