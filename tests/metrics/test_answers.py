"""Accuracy of answers: the closed form of VQA accuracy, its normalisation, and scores by kind."""

import math

import pytest

from diptych.metrics.answers import Told, answer_scores, commonest, normalise, soft_targets, vqa_accuracy


@pytest.mark.parametrize(("agree", "worth"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_of_ten_people(agree, worth):
    people = ["red"] * agree + [f"other {n}" for n in range(10 - agree)]
    assert vqa_accuracy("red", people) == pytest.approx(worth)
    assert vqa_accuracy("red", people, official=True) == pytest.approx(worth)


def test_vqa_accuracy_is_the_mean_of_leaving_each_out():
    people = ["a dog"] * 2 + ["dog", "cat", "Two dogs.", "2 dogs", "cat", "bird", "the cat", "dog!"]
    for given in ("dog", "cat", "2 dogs", "fish"):
        left = [people[:n] + people[n + 1 :] for n in range(10)]
        each = [min(sum(normalise(one) == normalise(given) for one in others) / 3, 1) for others in left]
        assert vqa_accuracy(given, people) == pytest.approx(sum(each) / 10)


def test_fewer_people_count_by_what_there_is():
    assert vqa_accuracy("red", ["Red"]) == 1
    assert vqa_accuracy("red", ["red", "red"]) == 1
    assert vqa_accuracy("red", ["red", "blue"]) == 0.5
    assert vqa_accuracy("red", []) == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Red Ball.", "red ball"),
        ("two", "2"),
        ("none", "0"),
        ("3.5", "3.5"),
        ("yes!", "yes"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("dont", "don't"),
        ("  an   apple ", "apple"),
    ],
)
def test_normalise(text, wanted):
    assert normalise(text) == wanted


def test_the_first_official_code_leaves_number_words_of_people_alone():
    assert vqa_accuracy("2", ["two"] * 10) == 1
    assert vqa_accuracy("2", ["two"] * 10, official=True) == 0
    assert vqa_accuracy("red", ["red."] * 10, official=True) == 0, "where all are alike, nothing is done to them"
    assert vqa_accuracy("red", ["red."] * 9 + ["blue"], official=True) == 1


def test_soft_targets_are_vqa_accuracy_of_the_known_answers():
    people = ["red"] * 6 + ["orange"] * 3 + ["pink"]
    assert soft_targets(people, {"red": 0, "orange": 2, "blue": 1}) == {0: pytest.approx(1), 2: pytest.approx(0.9)}
    assert soft_targets(people, {"blue": 0}) == {}


def told(given, answer, kind="colour", *, blind="red", answers=None):
    return Told(given, answer, answers or (answer,), kind, constant="2", usual="red", blind=blind)


def test_scores_by_kind_beside_answers_that_see_nothing():
    scores = answer_scores(
        [told("red", "red"), told("blue", "red"), told("2", "2", "count"), told("3", "2", "count", blind="2")]
    )
    assert scores == {
        "accuracy": 0.5,
        "accuracy_blind": 0.75,
        "accuracy_constant": 0.5,
        "questions": 4,
        "colour/accuracy": 0.5,
        "colour/accuracy_blind": 1.0,
        "colour/accuracy_constant": 1.0,
        "colour/questions": 2,
        "count/accuracy": 0.5,
        "count/accuracy_blind": 0.5,
        "count/accuracy_constant": 0.0,
        "count/questions": 2,
    }
    assert "accuracy_blind" not in answer_scores([told("red", "red", blind=None)])
    assert set(answer_scores([told("red", "red")])) == {"accuracy", "accuracy_blind", "accuracy_constant", "questions"}
    people = answer_scores([told("red", "red", answers=("red",) * 3 + ("blue",) * 7)])
    assert people["accuracy_vqa"] == pytest.approx(0.9)
    assert math.isnan(answer_scores([])["accuracy"])


def test_the_commonest_come_first_and_equals_by_the_alphabet():
    assert commonest(["b", "a", "c", "c"]) == ["c", "a", "b"]
