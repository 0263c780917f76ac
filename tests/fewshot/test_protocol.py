"""The protocol on a small run: test pictures choose nothing, bad rows are left out, what cannot be used is told."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import diptych
from diptych.core.errors import UserError
from diptych.data.sources import open_data
from diptych.fewshot import protocol
from diptych.fewshot.coop import CoOpConfig
from diptych.fewshot.labels import read_labels
from diptych.fewshot.study import METHODS, FewShotConfig, open_study, summary
from diptych.fewshot.wise_ft import TuneConfig

QUICK = {"coop": CoOpConfig(steps=2), "tune": TuneConfig(epochs=1), "seeds": 2, "prompts": ("{}",)}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory, table):
    """Lay out the pictures of the table again with four classes of 10 pictures in train, 5 in test."""
    folder = tmp_path_factory.mktemp("shapes")
    shutil.copytree(table.parent / "photos", folder / "photos")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split"])
        for number in range(60):
            writer.writerow([f"photos/{number:03}.png", "abcd"[number % 4], "train" if number < 40 else "test"])
    return folder / "labels.csv"


@pytest.fixture
def predictor(run_folder):
    return diptych.load(run_folder, device="cpu")


def test_every_method_runs_on_every_draw_and_zero_shot_is_that_of_the_predictor(predictor, shapes):
    source = open_data(shapes)
    study = protocol.few_shot(predictor, source, FewShotConfig(shots=(1, 4), **QUICK))
    assert {(s.method, s.shots, s.seed) for s in study.scores} == {
        (m, k, s) for m in METHODS for k in (1, 4) for s in (0, 1)
    }
    assert study.left_out == {}
    rows, label = study.readable_test()
    guess = predictor.classify([source.picture(row) for row in rows.tolist()], study.labelled.names, prompts=["{}"])
    right = np.mean([ranked[0][0] == "abcd"[k] for ranked, k in zip(guess, label, strict=True)])
    assert all(s.top1 == pytest.approx(right) for s in study.scores if s.method == "zero-shot")
    kept = [s.kept for s in study.scores if s.method == "wise-ft"]
    assert all(k is not None and "2 classes not tuned on" in k.task for k in kept)
    means = {(row["method"], row["shots"]): row for row in summary(study.scores)}
    assert means["zero-shot", 1]["top1_half_width"] == 0.0
    assert means["wise-ft", 4]["kept"].keys() == {"task", "before", "after", "chosen"}


def test_the_test_pictures_choose_nothing(predictor, shapes):
    """Whatever the test pictures are, what was chosen stays."""
    config = FewShotConfig(shots=(4,), methods=METHODS, **QUICK)
    plain = open_study(predictor, open_data(shapes), config)
    drawn = plain.draw(shots=4, seed=0)
    pool = plain.labelled.pool
    assert not (set(pool[drawn.train]) | set(pool[drawn.valid])) & set(plain.labelled.test)
    chosen = [score.chosen for score in protocol.run(plain)]
    spoilt = open_study(predictor, open_data(shapes), config)
    places = spoilt.place[spoilt.labelled.test]
    spoilt.vectors[torch.from_numpy(places)] = torch.nn.functional.normalize(torch.randn(len(places), 16), dim=1)
    assert [score.chosen for score in protocol.run(spoilt)] == chosen


def test_the_same_command_gives_the_same_scores(predictor, shapes):
    config = FewShotConfig(shots=(1,), methods=("tip-adapter-f", "coop", "wise-ft"), **QUICK)
    first, again = (protocol.few_shot(predictor, open_data(shapes), config) for _ in range(2))
    assert [s.top1 for s in first.scores] == [s.top1 for s in again.scores]
    assert [s.chosen for s in first.scores] == [s.chosen for s in again.scores]


def test_what_is_kept_elsewhere_is_retrieval_and_its_before_is_that_of_the_run(predictor, shapes, table):
    from diptych.metrics.retrieval import retrieval

    captioned = open_data(table)
    config = FewShotConfig(shots=(2,), methods=("wise-ft",), **QUICK)
    study = protocol.few_shot(predictor, open_data(shapes), config, elsewhere=captioned)
    rows = captioned.rows("test")
    image = torch.from_numpy(predictor.embed_image([captioned.picture(row) for row in rows.tolist()]))
    text = torch.from_numpy(predictor.embed_text(list(captioned.texts(rows))))
    ids = torch.arange(len(rows))
    found = retrieval(image, text, image_id=ids, text_id=ids.repeat_interleave(2))
    before = (found["image_to_text"]["r@1"] + found["text_to_image"]["r@1"]) / 2
    assert study.scores[0].kept.before == pytest.approx(before)
    assert "10 pictures" in study.scores[0].kept.task


def test_a_picture_that_cannot_be_read_is_left_out_and_listed(predictor, shapes, tmp_path):
    shutil.copytree(shapes.parent, tmp_path, dirs_exist_ok=True)
    for number in (0, 45):
        (tmp_path / "photos" / f"{number:03}.png").write_bytes(b"no picture")
    config = FewShotConfig(shots=(16,), methods=("zero-shot", "wise-ft"), **QUICK)
    study = protocol.few_shot(predictor, open_data(tmp_path / "labels.csv"), config)
    assert {problem.where.rpartition("/")[2] for problem in study.pictures.skipped} == {"000.png", "045.png"}
    assert len(study.readable_test()[0]) == 19
    assert study.short == {16: 4}


def test_a_model_that_coop_cannot_enter_leaves_it_out_in_one_line(predictor, shapes, monkeypatch):
    monkeypatch.setattr("diptych.fewshot.coop.WordTable", int)
    config = FewShotConfig(shots=(1,), methods=("zero-shot", "coop"), **QUICK)
    study = protocol.few_shot(predictor, open_data(shapes), config)
    assert "takes words only" in study.left_out["coop"]
    assert {score.method for score in study.scores} == {"zero-shot"}
    with pytest.raises(UserError, match="no method is left"):
        protocol.few_shot(predictor, open_data(shapes), FewShotConfig(shots=(1,), methods=("coop",), **QUICK))


def test_labels_are_read_from_all_but_the_test(shapes):
    found = read_labels(open_data(shapes), test_per_class=2)
    assert found.names == ("a", "b", "c", "d")
    assert sorted(found.pool) == list(range(40))
    assert np.bincount(found.test_label).tolist() == [2, 2, 2, 2]
    assert found.column == "label"


def test_mistakes_are_told(predictor, shapes, tmp_path):
    source = open_data(shapes)
    with pytest.raises(UserError, match="did you mean 'label'"):
        read_labels(source, column="lable")
    with pytest.raises(UserError, match=r"unknown method 'prob'.*'probe'"):
        open_study(predictor, source, FewShotConfig(methods=("prob",)))
    lines = shapes.read_text().splitlines()
    for name, text, what in (
        (
            "one.csv",
            [lines[0], *(line.replace(",b,", ",a,").replace(",c,", ",a,").replace(",d,", ",a,") for line in lines[1:])],
            "1 class",
        ),
        (
            "new.csv",
            [line.replace(",a,test", ",z,test") for line in lines if not line.endswith("test") or ",a," in line],
            "no picture of split",
        ),
    ):
        (shapes.parent / name).write_text("\n".join(text) + "\n")
        with pytest.raises(UserError, match=what):
            read_labels(open_data(shapes.parent / name))
        (shapes.parent / name).unlink()


def test_the_python_of_the_guide_runs(run_folder, table, tmp_path, monkeypatch, capsys):
    guide = Path(__file__).resolve().parents[2] / "docs" / "fewshot.md"
    (block,) = re.findall(r"```python\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    shutil.copytree(table.parent, tmp_path, dirs_exist_ok=True)
    shutil.copytree(run_folder, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "fewshot.md", "exec"), {})
    assert "tip-adapter 2" in capsys.readouterr().out
