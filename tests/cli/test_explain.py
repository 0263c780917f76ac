import json

import pytest
from PIL import Image

from diptych.predictor import load


def test_an_explanation_is_drawn_and_written(cli, run_folder, table, tmp_path):
    picture, out, told = table.parent / "photos" / "050.png", tmp_path / "made" / "why.png", tmp_path / "why.json"
    status, printed, _ = cli(
        "explain", run_folder, picture, "a large red circle", "-o", out, "--json", told, "--against", "a blue ring"
    )
    assert status == 0
    assert "cosine" in printed
    with Image.open(out) as drawn:
        assert drawn.width == 1080
    found = json.loads(told.read_text())
    assert [word["word"] for word in found["words"]] == ["a", "large", "red", "circle"]
    assert len(found["heat"]) == len(found["heat"][0]) == 64
    assert 0 <= min(map(min, found["heat"])) <= max(map(max, found["heat"])) <= 1


def test_a_predictor_explains_with_the_cosine_that_it_gives(run_folder, table):
    predictor = load(run_folder)
    picture = table.parent / "photos" / "051.png"
    found = predictor.explain(picture, "a small blue ring")
    assert found.score == pytest.approx(float(predictor.similarity(picture, "a small blue ring")[0, 0]), abs=1e-5)
    assert found.heat.shape == found.picture.shape[:2] == (64, 64)
    assert found.word_method == "occlusion"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"picture": "none.png"}, "none.png"),
        ({"text": "  "}, "an empty text has no words to explain"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"out": "why.docx"}, "cannot write why.docx"),
    ],
)
def test_mistakes_are_one_line(changed, message, cli, run_folder, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"picture": table.parent / "photos" / "050.png", "text": "a circle", "method": "auto", "out": "why.png"}
    given |= changed
    words = (given["picture"], given["text"], "--method", given["method"], "--out", given["out"])
    status, _, err = cli("explain", run_folder, *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_without_a_text_a_run_that_cannot_write_one_says_so(cli, run_folder, table):
    status, _, err = cli("explain", run_folder, table.parent / "photos" / "050.png")
    assert status == 2
    assert "explain takes a text" in err
