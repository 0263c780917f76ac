"""From training what draws to its pictures, as a user types it."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.cli.main import main
from diptych.core.errors import UserError

DATA = "scenes:200?objects=1&distinct=no&size=16"
SETS = {"image_size": 16, "generator_width": 4, "critic_width": 4, "noise": 6, "text_code": 6, "batch_size": 16}
SETS |= {"text_vocabulary": 300, "text_dim": 16, "text_layers": 1, "text_heads": 2, "steps": 3}
JUDGE = {"image_encoder": "resnet", "image_size": 16, "image_width": 4, "dim": 8, "batch_size": 32, "steps": 2}


def train(system, data, out, settings):
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    before, sys.argv = sys.argv, ["diptych", "train", system, data, "--out", str(out), *words]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return train("fine_tune", f"{DATA}&seed=1", tmp_path_factory.mktemp("judges") / "run", JUDGE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, judge):
    return train("gan_cls", DATA, tmp_path_factory.mktemp("artists") / "run", {**SETS, "recogniser": judge})


def test_a_run_has_scores_with_their_protocol_a_page_and_a_card(trained):
    scores = json.loads((trained / "scores.json").read_text())["test"]
    wanted = {"recognised", "colour", "shape", "frechet", "inception"}
    assert set(scores) == wanted | {f"real/{name}" for name in wanted}
    page, card = (trained / "report.html").read_text(), (trained / "README.md").read_text()
    for text in (page, card):
        assert "Drawn: 20 pictures of 16 px" in text
    assert "recognised as" in page
    assert page.count('alt="drawn for the text"') == 16 * 6
    assert "generator" in page  # the loss of each player has a curve
    assert "text-to-image" in card
    assert 'model.generate("a large red circle"' in card
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert any({"critic/loss/wrong", "generator/loss/between"} <= set(line) for line in lines)


def test_pictures_are_laid_out_a_row_for_each_text(trained, cli, tmp_path):
    words = ("generate", trained, "a large red circle", "a star", "--count", 3, "--scale", 2)
    status, out, _ = cli(*words, "--out", tmp_path / "sheet.png")
    assert status == 0
    assert f"6 pictures in {tmp_path / 'sheet.png'}" in out
    with Image.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    drawn = diptych.load(trained).generate(["a large red circle", "a star"], count=3)
    first = np.asarray(drawn[1][2]).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(sheet[36:68, 70:102], first)
    assert cli(*words, "-o", tmp_path / "again.png")[0] == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    assert cli(*words, "-o", tmp_path / "other.png", "--seed", 1)[0] == 0
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "sheet.png").read_bytes()


def test_pictures_may_stand_in_files_of_their_own(trained, cli, tmp_path):
    status, out, _ = cli("generate", trained, "a", "b", "--count", 2, "--apart", "-o", tmp_path / "new" / "x.png")
    assert status == 0
    assert "4 files" in out
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "x-0-0.png",
        "x-0-1.png",
        "x-1-0.png",
        "x-1-1.png",
    ]
    with Image.open(tmp_path / "new" / "x-1-1.png") as picture:
        assert picture.size == (32, 32)


def test_a_text_gets_the_same_pictures_whatever_else_is_asked(trained):
    model = diptych.load(trained)
    (alone,), both = model.generate("a star", count=70), model.generate(["a heart", "a star"], count=70)
    assert len(alone) == 70
    assert all(np.array_equal(one, other) for one, other in zip(alone, both[1], strict=True))


def test_mistakes_are_told_in_one_line(trained, judge, run_folder, cli, tmp_path):
    for words, told in (
        ((run_folder, "a star"), "CLIP draws no pictures; gan_cls does"),
        ((trained, " "), "nothing to draw for an empty text"),
        ((trained, "a star", "-o", tmp_path / "x.txt"), "is no name of a picture file; give one that ends in .png"),
        ((trained, "a star", "-o", "/proc/nowhere/x.png"), "cannot write /proc/nowhere/x.png"),
        ((tmp_path / "none", "a star"), "no run in"),
    ):
        status, _, err = cli("generate", *words)
        assert status == 2, words
        assert told in err
        assert len(err.strip().splitlines()) == 1
    assert "gan_cls has no space" in cli("index", trained, DATA, "--out", tmp_path / "index")[2]
    with pytest.raises(UserError, match="nothing to draw: give a text"):
        diptych.load(trained).generate([])
