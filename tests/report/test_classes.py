import re

import pytest
import torch

from diptych.data.sources import open_data
from diptych.report.classes import _flat, class_sections
from diptych.report.run import write_report
from diptych.train.experiment import prepare, run
from diptych.train.plan import make_plan

TINY = {"image_patch": "8", "image_dim": "8", "image_layers": "1", "image_heads": "2", "dim": "8", "image_size": "16"}
SCENES = "scenes:120?objects=1&distinct=no&captions=1&size=16&styles=flat,night"


@pytest.mark.parametrize(("system", "domains"), [("dann", {"targets": "night"}), ("fine_tune", {})])
def test_the_page_of_a_run_shows_classes_a_map_and_mistakes(system, domains, tmp_path):
    plan = make_plan(system, settings={**TINY, **domains, "batch_size": "8", "steps": "3"})
    experiment = prepare(plan, open_data(SCENES), out=tmp_path / "run", named="scenes")
    _, scores = run(experiment, out=tmp_path / "run")
    page = write_report(tmp_path / "run", experiment.data, experiment.model, scores=scores).read_text()
    wanted = ["Classes in the source", "Classes in the target"] if domains else ["Classes"]
    for title in (*wanted, "Where the pictures lie", "The surest mistakes"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<svg") == 2
    assert "named right" in page
    assert not re.search(r"(src|href)=\"http", page)


def test_what_names_no_classes_has_no_such_sections(run_folder, table):
    from diptych.train.experiment import data_for, load_run

    opened = load_run(run_folder)
    assert class_sections(data_for(opened, open_data(table)), opened.model, "test") == []


def test_the_map_shows_the_two_axes_of_largest_spread():
    wide = torch.randn(50, 4) * torch.tensor([0.1, 5.0, 0.1, 20.0])
    points = _flat(wide)
    centred = wide - wide.mean(0)
    assert points[:, 0].std().item() == pytest.approx(centred[:, 3].std().item(), rel=0.05)
    assert points[:, 1].std().item() == pytest.approx(centred[:, 1].std().item(), rel=0.1)
