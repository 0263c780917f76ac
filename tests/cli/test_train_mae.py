import json

from tests.fixtures import TINY, sets


def test_a_system_without_texts_is_trained_judged_by_its_loss_and_reported(cli, tmp_path):
    settings = sets(decoder_dim=16, decoder_layers=1)
    dim = settings.index(f"dim={TINY['dim']}")
    del settings[dim - 1 : dim + 1]  # there is no joint space
    out = tmp_path / "run"
    status, said, err = cli("train", "mae", "scenes:200", "--out", out, *settings)
    assert status == 0, err
    assert "2 steps in" in said
    assert "diptych index" not in said
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("valid/loss" in line and line["valid/-loss"] == -line["valid/loss"] for line in lines)
    assert "Texts find pictures" not in (out / "report.html").read_text()
    assert "similarity" not in (out / "README.md").read_text()
    scored = tmp_path / "scores.json"
    status, said, err = cli("evaluate", out, "scenes:200", "--json", scored)
    assert status == 0, err
    assert json.loads(scored.read_text())["loss"] == json.loads((out / "scores.json").read_text())["test"]["loss"]
    status, _, err = cli("embed", out, "a text", "--out", tmp_path / "vectors.npy")
    assert status == 2


def test_pictures_without_captions_are_enough(cli, tmp_path, table):
    settings = sets(decoder_dim=16, decoder_layers=1)
    dim = settings.index(f"dim={TINY['dim']}")
    del settings[dim - 1 : dim + 1]
    bare = table.parent / "bare.csv"
    bare.write_text("image\n" + "\n".join(line.split(",")[0] for line in table.read_text().splitlines()[1:]) + "\n")
    status, said, err = cli("train", "mae", bare, "--out", tmp_path / "run", *settings, "--set", "batch_size=16")
    assert status == 0, err
    assert "Report" in said


def test_words_are_told_beside_what_frozen_towers_made_of_them(cli, tmp_path):
    frozen = sets(image_train="frozen", text_train="frozen", image_read="cells", text_read="cells", decoder_dim=16)
    status, said, err = cli("train", "mutual", "scenes:200", "--out", tmp_path / "run", *frozen)
    assert status == 0, err
    assert "Scores on test" in said
