"""From training a captioner to its captions, as a user types it."""

import json

import pytest
from PIL import Image

import diptych
from diptych.core.errors import UserError
from diptych.core.writing import Writing

SETS = {"image_width": 4, "image_blocks": "1,1", "image_size": 32, "dim": 16, "heads": 2, "hidden": 16, "steps": 3}
SETS |= {"text_vocabulary": 300, "batch_size": 8, "self_critical": "true", "samples": 2}


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    import sys

    from diptych.cli.main import main

    out = tmp_path_factory.mktemp("writers") / "run"
    words = [word for name, value in SETS.items() for word in ("--set", f"{name}={value}")]
    before, sys.argv = sys.argv, ["diptych", "train", "meshed_memory", str(table), "--out", str(out), *words]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out


def test_a_run_has_both_stages_scores_a_page_and_a_card(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"words", "reward"}
    assert any("loss/reward" in row for row in rows)
    scores = json.loads((trained / "scores.json").read_text())["test"]
    assert {"cider_d", "bleu1", "bleu4", "rouge_l", "words"} == set(scores)
    page = (trained / "report.html").read_text()
    assert "The worst captions" in page
    assert "CIDEr-D" in page
    assert 'model.caption("photo.jpg")' in (trained / "README.md").read_text()


def test_captions_are_printed_and_written(trained, table, cli, tmp_path):
    pictures = sorted((table.parent / "photos").glob("*.png"))[:3]
    status, out, _ = cli("caption", trained, *pictures, "--json", tmp_path / "told.json")
    assert status == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert [row["picture"] for row in told] == [str(path) for path in pictures]
    assert all(f"{row['picture']}: {row['captions'][0]['text']}" in out for row in told)
    assert cli("caption", trained, pictures[0], "--beams", 3, "--count", 3)[1].count("000.png") == 3


def test_drawn_captions_come_back_with_the_seed(trained, table, cli):
    picture = table.parent / "photos" / "000.png"
    words = ("caption", trained, picture, "--nucleus", 0.95, "--count", 4)
    one, two, three = cli(*words)[1], cli(*words)[1], cli(*words, "--seed", 1)[1]
    assert one == two != three


def test_a_picture_that_cannot_be_read_is_left_out(trained, table, cli, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    picture = table.parent / "photos" / "000.png"
    status, out, err = cli("caption", trained, tmp_path / "broken.jpg", picture, tmp_path / "gone.png")
    assert status == 0
    assert "000.png: " in out
    assert err.count("skipped") == 2
    status, _, err = cli("caption", trained, tmp_path / "broken.jpg")
    assert status == 2
    assert "none of the pictures could be read" in err


def test_wrong_words_are_one_line(trained, run_folder, table, cli):
    picture = table.parent / "photos" / "000.png"
    for words, said in [
        ((run_folder, picture), "does not write captions; meshed_memory does"),
        ((trained, picture, "--nucleus", 1.5), "nucleus=1.5 is not valid"),
        ((trained, picture, "--count", 9), "9 texts need as many beams, got beams=5"),
    ]:
        status, _, err = cli("caption", *words)
        assert status == 2
        assert said in err
        assert err.count("\n") == 1


def test_a_run_is_scored_again_as_it_was(trained, table, cli, tmp_path):
    status, out, _ = cli("evaluate", trained, table, "--json", tmp_path / "again.json")
    assert status == 0
    assert "cider d" in out
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == pytest.approx(json.loads((trained / "scores.json").read_text())["test"], abs=1e-6)


def test_the_predictor_takes_paths_pictures_and_arrays(trained, table):
    model, path = diptych.load(trained, device="cpu"), table.parent / "photos" / "001.png"
    one = model.caption(path)
    assert one == model.caption(str(path)) == model.caption(Image.open(path))
    (text, log), (again, beside) = one[0][0], model.caption([path, path])[1][0]
    assert again == text
    assert beside == pytest.approx(log, rel=1e-5), "two pictures are other products of matrices than one"
    texts = model.caption(path, Writing(beams=4, count=4))[0]
    assert [log for _, log in texts] == sorted((log for _, log in texts), reverse=True)
    with pytest.raises(UserError, match="has no space for both pictures and texts"):
        model.embed_image(path)


def test_each_word_of_a_caption_gets_a_map(trained, table, cli, tmp_path):
    picture, out = table.parent / "photos" / "000.png", tmp_path / "why.png"
    status, printed, _ = cli("explain", trained, picture, "-o", out, "--json", tmp_path / "why.json")
    assert status == 0
    assert "log-probability -" in printed
    found = json.loads((tmp_path / "why.json").read_text())
    assert found["text"] == cli("caption", trained, picture)[1].split(": ", 1)[1].strip()
    status, _, _ = cli("explain", trained, picture, "a large red circle above it", "-o", tmp_path / "given.png")
    assert status == 0
    with Image.open(tmp_path / "given.png") as drawn:
        assert drawn.size[0] == 1080
        assert drawn.size[1] > 800  # a row of maps below
