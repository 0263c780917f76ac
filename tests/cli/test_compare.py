"""`diptych compare`: alike for all, again without doing anything twice, and honest about what failed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from diptych.cli.main import main
from tests.cli.test_mistakes import refused
from tests.fixtures import sets

ALIKE = sets(text_encoder="transformer", image_encoder="vit", image_train="all", text_train="all", evaluate_every=0.5)


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a comparison of two systems with two seeds, finished; tests copy it."""
    out = tmp_path_factory.mktemp("comparisons") / "cmp"
    before = sys.argv
    sys.argv = ["diptych", "compare", str(table), "clip", "mapper", "--out", str(out), "--seeds", "2", "--quiet"]
    sys.argv += ["--set", "margin=0.3", *ALIKE]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "cmp")


def weights(out: Path) -> dict[str, float]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.glob("*/*/model.safetensors"))}


def test_a_comparison_leaves_runs_tables_and_a_page(finished):
    assert set(weights(finished)) == {f"{n}/seed-{k}/model.safetensors" for n in ("clip", "mapper") for k in (0, 1)}
    record = json.loads((finished / "compare.json").read_text())
    assert [one["name"] for one in record["contestants"]] == ["clip", "mapper"]
    clip, mapper = record["contestants"]
    assert clip["scores"]["mean_r@1"]["count"] == 2
    assert [run["seed"] for run in clip["runs"]] == [0, 1]
    assert clip["runs"][0]["memory"] > 2**20
    assert clip["costs"]["rate"]["mean"] > 0
    assert clip["costs"]["steps"]["mean"] == 2
    assert mapper["against_first"]["mean_r@1"]["count"] == 2
    assert "margin is not a setting of clip, and so not given there" in record["notes"]
    assert "Scored once on test (10 rows), with the weights best on dev by mean R@1." in record["protocol"]
    page = (finished / "report.html").read_text()
    assert page.count("data:image/") > 20
    assert "Where they differ most" in page
    assert "right at" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "| mapper (n = 2) |" in (finished / "table.md").read_text()


def test_scores_are_means_of_what_the_runs_stored(finished):
    record = json.loads((finished / "compare.json").read_text())
    stored = [json.loads((finished / "clip" / f"seed-{k}" / "scores.json").read_text())["test"] for k in (0, 1)]
    for name, spread in record["contestants"][0]["scores"].items():
        assert spread["mean"] == pytest.approx((stored[0][name] + stored[1][name]) / 2, abs=1e-12)


def test_a_run_is_that_of_train_to_the_bit(cli, finished, table, tmp_path):
    assert cli("train", "clip", table, "--out", tmp_path / "r", *ALIKE, "--set", "seed=1")[0] == 0
    alone = (tmp_path / "r" / "model.safetensors").read_bytes()
    assert alone == (finished / "clip" / "seed-1" / "model.safetensors").read_bytes()


def test_a_new_system_runs_alone_and_joins_the_table(cli, done, table, tmp_path):
    before = weights(done)
    call = ("compare", table, "siglip", "--out", done, "--seeds", 2, *ALIKE)
    status, out, _ = cli(*call, "--set", "margin=0.3", "--json", tmp_path / "found.json")
    assert status == 0
    assert "2 runs, 0 of them finished before" in out
    assert {name: when for name, when in weights(done).items() if name in before} == before
    names = [one["name"] for one in json.loads((tmp_path / "found.json").read_text())["contestants"]]
    assert names == ["clip", "mapper", "siglip"]
    assert "Difference to clip" in out
    shutil.rmtree(done / "mapper")
    status, out, _ = cli(*call)
    assert status == 0
    assert "2 runs, 2 of them finished before" in out
    assert [one["name"] for one in json.loads((done / "compare.json").read_text())["contestants"]] == ["clip", "siglip"]


def test_more_seeds_train_only_those(cli, done, table):
    before = weights(done)
    status, out, _ = cli("compare", table, "clip", "mapper", "--out", done, "--seeds", 3, "--set", "margin=0.3", *ALIKE)
    assert status == 0
    assert "6 runs, 4 of them finished before" in out
    assert {name: when for name, when in weights(done).items() if name in before} == before
    assert "clip (n=3)" in out


def test_a_trained_run_without_scores_is_scored_not_trained(cli, done, table):
    before, run = weights(done), done / "clip" / "seed-0"
    scores = json.loads((run / "scores.json").read_text())
    (run / "scores.json").unlink()
    (run / "outcome.json").unlink()
    status, out, _ = cli("compare", table, "clip", "mapper", "--out", done, "--seeds", 2, "--set", "margin=0.3", *ALIKE)
    assert status == 0
    assert "4 runs, 3 of them finished before" in out
    assert weights(done) == before
    assert json.loads((run / "scores.json").read_text()) == scores


def test_another_set_up_is_refused_before_anything_runs(cli, done, table, tmp_path):
    before = weights(done)
    call = ("compare", table, "clip", "mapper", "--out", done, "--seeds", 2, "--set", "margin=0.3", *ALIKE)
    refused(cli(*call, "--set", "lr=1e-3"), "clip/seed-0", "train.lr was 0.0005 and is now 0.001", "--out")
    refused(cli("compare", table, "clip=siglip", *call[3:]), "system was clip and is now siglip", "NAME=siglip")
    other = tmp_path / "other"
    shutil.copytree(table.parent, other)
    lines = table.read_text().splitlines()
    (other / "captions.csv").write_text("\n".join(lines[:-2]) + "\n")
    refused(cli("compare", other / "captions.csv", *call[2:]), "other data", "--out")
    refused(cli("compare", table, "clip", "--out", done / "compare.json", *ALIKE), "is a file")
    assert weights(done) == before


def test_what_cannot_be_meant_is_refused(cli, table, tmp_path):
    out = tmp_path / "c"
    refused(cli("compare", table, "clip", "siglp", "--out", out), "'siglp'", "'siglip'")
    refused(cli("compare", table, "clip", "siglip", "--out", out, "--set", "epocs=2"), "'epocs'", "'epochs'")
    refused(cli("compare", table, "clip", "clip", "--out", out), "two contestants", "other=clip")
    refused(cli("compare", table, "clip:dimm=3", "--out", out), "'dimm'", "'dim'")
    assert not out.exists()


def test_one_that_fails_is_told_and_the_others_go_on(cli, table, tmp_path):
    """One is given too much at a time, one loses its numbers; both are tried again the next time."""
    out = tmp_path / "c"
    words = ["over=clip:batch_size=500", "hot=clip:lr=1e30,clip=0,warmup=0,precision=fp32,evaluate_every=0", "clip"]
    status, told, err = cli("compare", table, *words, "--out", out, "--seeds", 1, *ALIKE)
    assert status == 1
    assert "failed: over, seed 0: batch size 500 is more than the 40 rows" in err
    assert "failed: hot, seed 0: stopped at step" in err
    assert "clip (n=1)" in told
    assert "over (n=0)" not in told
    text = (out / "table.md").read_text()
    assert "| over (n = 0) | – |" in text
    assert "Failed: hot, seed 0: stopped at step" in text
    assert "not the same budget: batch_size is 500 for over, 16 for hot and clip" in text
    status, told, _ = cli("compare", table, *words, "--out", out, "--seeds", 1, *ALIKE)
    assert status == 1
    assert "3 runs, 1 of them finished before" in told


def test_a_fault_in_a_system_of_ones_own_is_an_outcome(cli, table, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "faulty.py").write_text(
        "from diptych.models.align.clip import Config\n\n\ndef build(config, spec):\n    raise KeyError('lost')\n"
    )
    (tmp_path / "own" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    status, _, err = cli(
        "compare", table, "own.faulty", "clip", "--out", tmp_path / "c", "--seeds", 1, "--quiet", *ALIKE
    )
    assert status == 1
    assert err.strip() == "failed: own.faulty, seed 0: KeyError: 'lost'"
    assert "Traceback" in (tmp_path / "c" / "own.faulty" / "seed-0.log").read_text()


def test_quiet_prints_nothing(cli, done, table):
    call = ("compare", table, "clip", "mapper", "--out", done, "--seeds", 2, "--set", "margin=0.3", *ALIKE)
    assert cli(*call, "--quiet") == (0, "", "")


def test_a_system_without_retrieval_stands_beside_the_others(cli, table, tmp_path):
    words = sets(decoder_dim=16, decoder_layers=1, decoder_heads=2, image_patch=16)
    status, out, err = cli("compare", table, "clip", "mae", "--out", tmp_path / "c", "--seeds", 1, *words)
    assert status == 0, err
    record = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert set(record["contestants"][1]["scores"]) >= {"loss"}
    assert record["contestants"][1]["against_first"] == {}
    assert "mae: scored once on test (10 rows)" in out
