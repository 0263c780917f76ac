"""data2vec as a user types it: both modalities, going on, the warning, and what can be begun with the tower."""

import json

import pytest

from diptych.core.saved import read_tensors
from tests.fixtures import sets

IMAGE = {"image_patch": 8, "top": 1, "batch_size": 32}
TEXT = {"modality": "text", "top": 1, "batch_size": 32}


def settings(**changed):
    words = sets(**changed)
    place = words.index("dim=16")
    del words[place - 1 : place + 1]  # there is no joint space
    return words


@pytest.mark.parametrize("own", [IMAGE, TEXT], ids=["image", "text"])
def test_either_side_is_trained_watched_and_reported(own, cli, tmp_path):
    out = tmp_path / "run"
    status, _, err = cli("train", "data2vec", "scenes:200", "--out", out, *settings(**own, log_every=1))
    assert status == 0, err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all("loss/target_variance" in line for line in lines if "lr" in line)
    assert {"loss", "target_variance", "prediction_variance"} < json.loads((out / "scores.json").read_text())[
        "test"
    ].keys()
    assert "target variance" in (out / "report.html").read_text()
    scored = tmp_path / "scores.json"
    status, _, err = cli("evaluate", out, "scenes:200", "--json", scored)
    assert status == 0, err
    assert json.loads(scored.read_text())["loss"] == json.loads((out / "scores.json").read_text())["test"]["loss"]


def test_collapsed_targets_are_told_in_the_log_and_on_the_page(cli, tmp_path):
    out = tmp_path / "run"
    fast = settings(**TEXT, lr=0.3, momentum=0.0, momentum_end=0.0, clip=0.0, warmup=0, steps=12, log_every=1)
    status, said, err = cli("train", "data2vec", "scenes:200", "--out", out, *fast)
    assert status == 0, err
    assert "warning, step" in said + err
    assert any("the targets have collapsed" in line for line in (out / "metrics.jsonl").read_text().splitlines())
    assert "<b>Warning</b>, step" in (out / "report.html").read_text()


def test_clip_begins_with_either_tower(cli, tmp_path):
    for side, own in (("image", IMAGE), ("text", TEXT)):
        first = tmp_path / side
        assert cli("train", "data2vec", "scenes:200", "--out", first, *settings(**own))[0] == 0
        known = {"image": {"image_encoder": "masked_vit", "image_pool": "mean", "image_patch": 8}, "text": {}}[side]
        known |= {"text_pool": "mean"} if side == "text" else {}
        then = sets(**known, init=first, lr=1e-9, steps=1)
        status, _, err = cli("train", "clip", "scenes:200", "--out", tmp_path / f"{side}-clip", *then)
        assert status == 0, err
        before, after = (read_tensors(folder / "model.safetensors") for folder in (first, tmp_path / f"{side}-clip"))
        names = [name for name in before if name.startswith(f"{side}_tower.")]
        assert names
        assert all((before[name] - after[name]).abs().max() < 1e-6 for name in names)
    words = json.loads((tmp_path / "image-clip" / "config.json").read_text())["spec"]["vocabulary"]
    letters = json.loads((tmp_path / "image" / "config.json").read_text())["spec"]["vocabulary"]
    assert words > letters  # a tower of pictures leaves the words to those who read them


def test_words_are_needed_for_texts(cli, tmp_path, table):
    bare = table.parent / "bare-alone.csv"
    bare.write_text("image\n" + "\n".join(line.split(",")[0] for line in table.read_text().splitlines()[1:]) + "\n")
    status, _, err = cli("train", "data2vec", bare, "--out", tmp_path / "run", *settings(**TEXT))
    assert status == 2
    assert "has no captions" in err
    assert cli("train", "data2vec", bare, "--out", tmp_path / "run", *settings(**{**IMAGE, "batch_size": 16}))[0] == 0
