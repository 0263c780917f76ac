"""From captions to words, their neighbours and their pictures, as a user types it."""

import json
import sys

import pytest

SETS = {"image_encoder": "vit", "image_patch": 16, "image_dim": 16, "image_layers": 1, "image_heads": 2, "dim": 8}
SETS |= {"least": 1, "least_pictures": 2, "steps": 4, "batch_size": 16, "withheld": 0.3}


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    from diptych.cli.main import main

    out = tmp_path_factory.mktemp("words") / "run"
    sets = [word for name, value in SETS.items() for word in ("--set", f"{name}={value}")]
    before, sys.argv = sys.argv, ["diptych", "train", "multimodal_skipgram", str(table), "--out", str(out), *sets]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out


def test_a_run_has_scores_and_a_page(trained, cli, table):
    scores = json.loads((trained / "scores.json").read_text())["test"]
    assert {"loss", "-loss", "imagined/r@1", "imagined/r@10", "imagined/rank", "imagined/pictures"} == set(scores)
    assert (trained / "report.html").is_file()
    status, _, err = cli("evaluate", trained, table, "--split", "test")
    assert status == 0, err
    assert json.loads((trained / "scores.json").read_text())["test"] == pytest.approx(scores)


def test_words_have_neighbours_ratings_and_pictures(trained, cli, table, tmp_path):
    (tmp_path / "rated.tsv").write_text("red\tblue\t7\nred\tcircle\t3\nblue\tgreen\t6\nred\tunicorn\t1\n")
    found = tmp_path / "found.json"
    words = ("words", trained, "--near", "red", "--similarity", tmp_path / "rated.tsv", "--imagine", "red")
    status, out, err = cli(*words, "--pictures", table, "--split", "test", "--count", "3", "--json", found)
    assert status == 0, err
    told = json.loads(found.read_text())
    assert len(told["near"]["red"]) == 3
    assert "red" not in [word for word, _ in told["near"]["red"]]
    assert next(iter(told["similarity"].values()))["coverage"] == 0.75
    assert len(told["imagine"]["red"]) == 3
    assert "on 3 of 4 pairs" in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), "nothing to do"),
        (("--imagine", "red"), "--imagine needs pictures"),
        (("--near", "rad"), "unknown word 'rad'; did you mean 'red'?"),
        (("--similarity", "absent.tsv"), "cannot read absent.tsv"),
    ],
)
def test_mistakes_are_told_in_one_line(trained, cli, words, wanted):
    status, _, err = cli("words", trained, *words)
    assert status == 2
    assert wanted in err
    assert err.count("\n") == 1


def test_a_run_without_words_says_which_have_them(run_folder, cli):
    status, _, err = cli("words", run_folder, "--near", "red")
    assert status == 2
    assert "skipgram and multimodal_skipgram do" in err
