"""From training an answerer to its answers, as a user types it."""

import json

import pytest
from PIL import Image

import diptych

SETS = {"image_width": 4, "image_blocks": "1,1", "image_size": 32, "dim": 16, "heads": 2, "hidden": 16, "steps": 3}
SETS |= {"text_vocabulary": 300, "text_dim": 16, "text_layers": 1, "text_heads": 2, "batch_size": 12, "questions": 3}


def words_of(**changed):
    return [word for name, value in {**SETS, **changed}.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    import sys

    from diptych.cli.main import main

    out = tmp_path_factory.mktemp("answerers") / "run"
    before, sys.argv = sys.argv, ["diptych", "train", "attention_vqa", "scenes:60", "--out", str(out), *words_of()]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out


def test_a_run_has_scores_by_kind_a_page_and_a_card(trained):
    scores = json.loads((trained / "scores.json").read_text())["test"]
    assert {"accuracy", "accuracy_blind", "accuracy_constant", "questions"} <= set(scores)
    assert "relation/accuracy" in scores
    page = (trained / "report.html").read_text()
    assert "without the picture" in page
    assert "Wrong answers" in page
    card = (trained / "README.md").read_text()
    assert "visual-question-answering" in card
    assert 'model.ask("photo.jpg"' in card


def test_answers_are_printed_and_written(trained, table, cli, tmp_path):
    picture = table.parent / "photos" / "000.png"
    status, out, _ = cli(
        "ask", trained, picture, "what colour is the circle?", "how many?", "--json", tmp_path / "a.json"
    )
    assert status == 0
    told = json.loads((tmp_path / "a.json").read_text())
    assert [one["question"] for one in told["questions"]] == ["what colour is the circle?", "how many?"]
    assert all(len(one["answers"]) == 3 for one in told["questions"])
    best = told["questions"][0]["answers"][0]
    assert f"{100 * best['probability']:5.1f} %  {best['text']}" in out
    assert "how many?" in out
    alone = cli("ask", trained, picture, "how many?", "--count", 1)[1]
    assert len(alone.splitlines()) == 1


def test_the_predictor_answers(trained, table):
    found = diptych.load(trained).ask(table.parent / "photos" / "000.png", "how many?", count=2)
    assert [len(answers) for answers in found] == [2]


def test_mistakes_are_one_line(trained, run_folder, table, cli, tmp_path):
    picture = table.parent / "photos" / "000.png"
    for words, says in (
        ((trained, picture, " "), "the question is empty"),
        ((trained, tmp_path / "no.png", "what?"), "no.png"),
        ((run_folder, picture, "what?"), "does not answer questions; attention_vqa does"),
    ):
        status, out, err = cli("ask", *words)
        assert status == 2
        assert out == ""
        assert says in err
        assert len(err.strip().splitlines()) == 1
    (tmp_path / "bad.png").write_bytes(b"no picture")
    status, _, err = cli("ask", trained, tmp_path / "bad.png", "what?")
    assert status == 2
    assert "bad.png" in err


def test_data_without_questions_are_refused(table, cli, tmp_path):
    status, _, err = cli("train", "attention_vqa", table, "--out", tmp_path / "x", *words_of())
    assert status == 2
    assert "no questions with answers" in err


def test_fusions_are_compared_in_one_table(cli, tmp_path):
    contestants = (
        "question_only",
        "concat=attention_vqa:fusion=concat",
        "low_rank=attention_vqa:fusion=low_rank,rank=2",
    )
    status, out, err = cli(
        "compare", "scenes:60", *contestants, "--out", tmp_path / "cmp", "--seeds", 1, *words_of(steps=2)
    )
    assert status == 0, err
    table = (tmp_path / "cmp" / "table.md").read_text()
    assert "question_only" in table
    assert "low_rank" in table
    assert "accuracy" in out
    assert 'model.ask("photo.jpg"' in (tmp_path / "cmp" / "concat" / "seed-0" / "README.md").read_text()
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    assert cli("ask", tmp_path / "cmp" / "concat" / "seed-0", tmp_path / "one.png", "what?")[0] == 0
