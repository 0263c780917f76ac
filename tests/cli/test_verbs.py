"""The verbs do their work from end to end, as typed."""

import json
from pathlib import Path

import numpy as np
import pytest

VERBS = ("demo", "models", "check", "train", "compare", "evaluate", "embed", "index", "search", "classify")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(cli, verb):
    status, out, _ = cli(verb, "--help")
    assert status == 0
    assert "Example: " in out
    assert f"diptych {verb}" in out


def test_a_mistyped_verb_or_option_gets_a_suggestion(cli):
    status, _, err = cli("serach", "x")
    assert status == 2
    assert "search" in err
    status, _, err = cli("search", "x", "--jsn", "y")
    assert status == 2
    assert "--json" in err


def test_train_leaves_a_whole_run_folder(run_folder: Path):
    there = {path.name for path in run_folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl", "README.md", "report.html"} <= there
    card = (run_folder / "README.md").read_text()
    assert "diptych train clip" in card
    assert "| image to text |" in card
    page = (run_folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("data:image/jpeg") > 10


def test_evaluate_writes_stable_json(cli, run_folder, table, tmp_path):
    status, out, _ = cli("evaluate", run_folder, table, "--split", "test", "--json", tmp_path / "s.json")
    scores = json.loads((tmp_path / "s.json").read_text())
    assert status == 0
    assert "image to text" in out
    assert scores["texts"] == 20
    for side in ("image_to_text", "text_to_image"):
        assert set(scores[side]) == {"r@1", "r@5", "r@10", "median_rank", "mean_rank"}
    again = json.loads((tmp_path / "s.json").read_text())
    cli("evaluate", run_folder, table, "--split", "test", "--json", tmp_path / "s.json")
    assert again == scores


def test_evaluate_names_classes_without_training(cli, run_folder, table, tmp_path):
    status, out, _ = cli("evaluate", run_folder, table, "--zero-shot", "label", "--json", tmp_path / "z.json")
    assert status == 0
    assert "top1" in out
    assert json.loads((tmp_path / "z.json").read_text())["zero_shot"]["pictures"] == 10
    status, _, err = cli("evaluate", run_folder, table, "--zero-shot", "lable")
    assert status == 2
    assert "did you mean 'label'" in err


def test_index_search_add_delete_and_filter(cli, run_folder, table, tmp_path):
    place, found = tmp_path / "index", tmp_path / "hits.json"
    status, out, _ = cli("index", run_folder, table, "--out", place, "--split", "test")
    assert (status, "10 pictures added" in out) == (0, True)
    status, out, _ = cli("index", run_folder, table, "--out", place)
    assert "50 pictures added, 10 known before" in out
    page = tmp_path / "hits.html"
    status, out, _ = cli(
        "search", place, "a red circle", "-k", 3, "--where", "split=dev", "--json", found, "--html", page
    )
    assert status == 0
    hits = json.loads(found.read_text())["results"]
    assert len(hits) == 3
    assert all(hit["metadata"]["split"] == "dev" for hit in hits)
    assert page.read_text().count("data:image/jpeg") == 3
    cli("index", run_folder, table, "--out", place, "--delete", hits[0]["key"], "--split", "test")
    cli("search", place, "a red circle", "-k", 3, "--where", "split=dev", "--json", found)
    assert hits[0]["key"] not in [hit["key"] for hit in json.loads(found.read_text())["results"]]


def test_search_by_a_picture_finds_that_picture(cli, run_folder, table, tmp_path):
    place, found = tmp_path / "index", tmp_path / "hits.json"
    cli("index", run_folder, table, "--out", place)
    picture = table.parent / "photos" / "007.png"
    status, _, _ = cli("search", place, "--image", picture, "--json", found)
    best = json.loads(found.read_text())["results"][0]
    assert status == 0
    assert best["key"].endswith("007.png")
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    caption = best["text"].partition("\n")[0]
    assert cli("search", place, caption, "--hybrid", "--json", found)[0] == 0
    both = json.loads(found.read_text())["results"]
    assert set(caption.split()) & set(both[0]["text"].split())
    assert all(0 < hit["score"] <= 1 for hit in both)
    status, _, err = cli("search", place, "--image", picture, "--hybrid")
    assert (status, "a hybrid search needs words" in err) == (2, True)


def test_embed_writes_what_the_predictor_computes(cli, run_folder, table, tmp_path):
    import diptych

    assert cli("embed", run_folder, table, "--out", tmp_path / "v", "--split", "dev")[0] == 0
    images, texts = np.load(tmp_path / "v" / "images.npy"), np.load(tmp_path / "v" / "texts.npy")
    keys = [json.loads(line) for line in (tmp_path / "v" / "keys.jsonl").read_text().splitlines()]
    assert images.shape == (10, 16)
    assert texts.shape == (20, 16)
    model = diptych.load(run_folder, device="cpu")
    again = model.embed_image(table.parent / keys[3]["key"])
    np.testing.assert_allclose(again[0], images[3], atol=1e-5)


def test_classify_ranks_the_labels(cli, run_folder, table, tmp_path):
    picture = table.parent / "photos" / "001.png"
    status, _out, _ = cli("classify", run_folder, picture, "--labels", "dog,cat", "--json", tmp_path / "c.json")
    labels = json.loads((tmp_path / "c.json").read_text())[0]["labels"]
    assert status == 0
    assert sum(labels.values()) == pytest.approx(1, abs=1e-5)
    assert set(labels) == {"dog", "cat"}


def test_models_lists_every_system_with_what_it_is(cli):
    from diptych import models

    status, out, _ = cli("models")
    assert status == 0
    assert all(name in out for name in models.names())


def test_check_tells_and_writes(cli, table, tmp_path):
    status, _out, _ = cli("check", table, "--out", tmp_path / "o", "--json", tmp_path / "c.json")
    assert status == 0
    assert json.loads((tmp_path / "c.json").read_text())["pictures"] == 60
    assert "60" in (tmp_path / "o" / "check.html").read_text()
