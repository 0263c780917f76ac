"""The verb `fewshot` from end to end, as typed."""

import json

import pytest

QUICK = ("--coop-steps", 2, "--tune-epochs", 1, "--seeds", 2)


def test_fewshot_prints_writes_and_draws(cli, run_folder, table, tmp_path):
    data, page, plot = tmp_path / "f.json", tmp_path / "f.html", tmp_path / "f.png"
    status, out, err = cli(
        "fewshot", run_folder, table, "--label-column", "label", "--shots", "1,2", *QUICK,
        "--json", data, "--html", page, "--plot", plot,
    )  # fmt: skip
    assert status == 0, err
    for name in (
        "zero-shot",
        "tip-adapter-f",
        "wise-ft",
        "before fine-tuning",
        "2 shots",
        "have fewer than 2 pictures",
    ):
        assert name in out
    found = json.loads(data.read_text())
    assert found["finished"]
    assert len(found["scores"]) == 8 * 2 * 2
    assert {row["shots"] for row in found["summary"]} == {1, 2}
    assert "fewshot" in found["command"]
    text = page.read_text()
    assert "<svg" in text
    assert "https://" not in text
    assert "before fine-tuning" in text
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_an_interrupted_comparison_keeps_what_there_is(cli, run_folder, table, tmp_path, monkeypatch):
    from diptych.fewshot import protocol

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "coop", interrupted)
    words = ("fewshot", run_folder, table, "--methods", "zero-shot,coop", "--shots", "1", "--json", tmp_path / "f.json")
    status, out, err = cli(*words)
    found = json.loads((tmp_path / "f.json").read_text())
    assert status == 130
    assert "interrupted" in err
    assert "zero-shot" in out
    assert not found["finished"]
    assert [score["method"] for score in found["scores"]] == ["zero-shot"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--methods", "prob"), "'probe'"),
        (("--shots", "0"), "shots"),
        (("--shots", "one"), "shots"),
        (("--plot", "curves.gif"), ".png"),
        (("--label-column", "lable"), "'label'"),
        (("--prompt", "a photo"), "{}"),
        (("--context", "40", "--methods", "coop"), "reads 32"),
        (("--kept", "nothing.csv"), "nothing.csv"),
    ],
)
def test_mistakes_get_one_line(cli, run_folder, table, words, told):
    status, _, err = cli("fewshot", run_folder, table, *words)
    assert status == 2, err
    line = err.strip().splitlines()[-1]
    assert line.startswith("diptych: ")
    assert told in line


@pytest.mark.parametrize("header", ["image,kind,label,split", "image,label,kind,split", "image,class,kind,split"])
def test_the_column_that_was_named_holds_the_classes(cli, run_folder, table, tmp_path, header):
    lines = [header]
    for number in range(40):
        cells = {"image": str(table.parent / "photos" / f"{number:03}.png"), "kind": f"k{number % 3}"}
        cells |= {"label": "same", "class": "same", "split": "train" if number < 30 else "test"}
        lines.append(",".join(cells[name] for name in header.split(",")))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    words = ("--methods", "zero-shot", "--shots", 1, "--seeds", 1, "--json", tmp_path / "f.json")
    status, _, err = cli("fewshot", run_folder, tmp_path / "t.csv", "--label-column", "kind", *words)
    assert status == 0, err
    assert json.loads((tmp_path / "f.json").read_text())["classes"] == ["k0", "k1", "k2"]
    status, _, err = cli("fewshot", run_folder, "scenes:60", "--label-column", "styl", *words)
    assert status == 2
    assert "'style'" in err
