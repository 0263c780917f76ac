"""From a folder of two styles to classes in the one without labels, as a user types it."""

import json
import sys

import pytest
from PIL import Image

from diptych.data.scenes import open_scenes

SETS = {"image_patch": 16, "image_dim": 16, "image_layers": 1, "image_heads": 2, "dim": 8, "batch_size": 16, "steps": 4}


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    """Lay pictures out as STYLE/LABEL/NUMBER.png, of few classes."""
    folder = tmp_path_factory.mktemp("styles")
    source = open_scenes("scenes:200?objects=1&distinct=no&captions=1&styles=flat,night")
    for index in range(len(source)):
        fields = source.row(index).fields
        place = folder / str(fields["style"]) / str(fields["label"]).split()[-1]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.picture(index)).save(place / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def trained(styles, tmp_path_factory):
    from diptych.cli.main import main

    out = tmp_path_factory.mktemp("adapted") / "run"
    sets = [word for name, value in (SETS | {"targets": "night"}).items() for word in ("--set", f"{name}={value}")]
    before, sys.argv = sys.argv, ["diptych", "train", "dann", str(styles), "--out", str(out), *sets]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out


def test_a_run_on_folders_has_scores_of_both_domains_a_page_and_a_card(trained, cli, styles):
    scores = json.loads((trained / "scores.json").read_text())["test"]
    assert {"source/accuracy", "target/accuracy", "target/infomax", "selection"} <= scores.keys()
    assert "Classes in the target" in (trained / "report.html").read_text()
    card = (trained / "README.md").read_text()
    assert "image-classification" in card
    assert "model.classify" in card
    status, _, err = cli("evaluate", trained, styles, "--split", "test")
    assert status == 0, err
    assert json.loads((trained / "scores.json").read_text())["test"] == pytest.approx(scores, abs=1e-5)


def test_pictures_are_named_with_the_classes_that_were_learnt(trained, cli, styles, tmp_path):
    pictures = sorted(styles.rglob("*.png"))[:3]
    status, _, err = cli("classify", trained, *pictures, "--json", tmp_path / "named.json")
    assert status == 0, err
    (first, *rest) = json.loads((tmp_path / "named.json").read_text())
    assert sum(first["labels"].values()) == pytest.approx(1, abs=1e-5)
    assert list(first["labels"].values()) == sorted(first["labels"].values(), reverse=True)
    assert len(rest) == 2
    status, _, err = cli("classify", trained, pictures[0], "--labels", "a,b")
    assert status == 2
    assert "dann has no space for both pictures and texts" in err


def test_a_system_of_pairs_still_needs_labels(run_folder, cli, table):
    picture = next((table.parent / "photos").glob("*.png"))
    status, _, err = cli("classify", run_folder, picture)
    assert status == 2
    assert "needs at least one label" in err


def test_no_target_is_told_with_the_domains_there_are(cli, styles, tmp_path):
    status, _, err = cli("train", "mmd", styles, "--out", tmp_path / "run", "--set", "batch_size=8")
    assert status == 2
    assert "give --set targets=DOMAIN (there are: flat, night)" in err
