"""A mistake gets one clear line on standard error and exit status 2; nothing that was done is lost."""

import json
import shutil

import pytest

from tests.fixtures import sets


def refused(result, *words):
    status, _, err = result
    assert status == 2, err
    line = err.strip().splitlines()[-1]
    assert line.startswith("diptych: ")
    assert "Traceback" not in err
    for word in words:
        assert word in line, f"{word!r} is not in: {line}"


def test_missing_file_names_it(cli, tmp_path):
    refused(cli("train", "clip", tmp_path / "no.csv", "--out", tmp_path / "r"), "no.csv")
    assert not (tmp_path / "r").exists()


def test_unknown_system_setting_recipe_and_value(cli, table, tmp_path):
    out = tmp_path / "r"
    refused(cli("train", "clp", table, "--out", out), "unknown system 'clp'", "clip")
    refused(cli("train", "clip", table, "--out", out, "--set", "epocs=3"), "unknown setting 'epocs'", "'epochs'")
    refused(cli("train", "clip", table, "--out", out, "--set", "epochs=many"), "epochs='many'")
    refused(cli("train", "clip", table, "--out", out, "--set", "epochs"), "key=value", "'epochs'")
    refused(cli("train", "clip", table, "--out", out, "--recipe", "flickr8k-frozn"), "'flickr8k-frozen'")


def test_unknown_column_lists_those_there_are(cli, table, tmp_path):
    result = cli("train", "clip", table, "--out", tmp_path / "r", "--caption-column", "captoin")
    refused(result, "captoin", "caption")


def test_batch_over_the_data_says_the_largest(cli, table, tmp_path):
    refused(cli("train", "clip", table, "--out", tmp_path / "r", *sets(batch_size=500)), "500", "40")


def test_unknown_hub_name_without_network(cli, table, tmp_path):
    result = cli("train", "clip", table, "--out", tmp_path / "r", "--set", "image_encoder=nobody/nothing")
    refused(result, "nobody/nothing")


def test_a_finished_run_is_not_overwritten(cli, run_folder, table):
    before = (run_folder / "model.safetensors").read_bytes()
    refused(cli("train", "clip", table, "--out", run_folder, *sets()), "finished", "--out")
    assert (run_folder / "model.safetensors").read_bytes() == before


def test_a_folder_that_is_no_run(cli, table, tmp_path):
    refused(cli("evaluate", tmp_path, table), "no run")
    refused(cli("evaluate", tmp_path / "gone", table), "gone")


def test_a_run_cut_short_or_of_another_system(cli, run_folder, table, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(run_folder, cut)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(cli("evaluate", cut, table), "model.safetensors")
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    record = json.loads((other / "config.json").read_text())
    record["spec"]["vocabulary"] += 7
    (other / "config.json").write_text(json.dumps(record))
    refused(cli("evaluate", other, table), "vocabulary")


def test_search_needs_one_question_and_an_index(cli, tmp_path):
    refused(cli("search", tmp_path, "a text"), "index")
    refused(cli("search", tmp_path, "a text", "--image", "x.jpg"), "one of them")


def test_search_refuses_a_bad_filter_and_a_moved_run(cli, run_folder, table, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run_folder, moved)
    cli("index", moved, table, "--out", tmp_path / "i", "--split", "test")
    refused(cli("search", tmp_path / "i", "a text", "--where", "split"), "COLUMN=VALUE", "'split'")
    shutil.rmtree(moved)
    refused(cli("search", tmp_path / "i", "a text"), "moved", "--run")
    assert cli("search", tmp_path / "i", "a text", "--run", run_folder)[0] == 0


def test_an_index_of_another_model_is_refused(cli, run_folder, table, tmp_path):
    cli("index", run_folder, table, "--out", tmp_path / "i", "--split", "test")
    cli("train", "clip", table, "--out", tmp_path / "r2", *sets(seed=5))
    refused(cli("index", tmp_path / "r2", table, "--out", tmp_path / "i"), "model")
    refused(cli("search", tmp_path / "i", "a text", "--run", tmp_path / "r2"), "index")


def test_classify_skips_what_it_cannot_read_and_needs_labels(cli, run_folder, table, tmp_path):
    bad, good = tmp_path / "bad.jpg", table.parent / "photos" / "001.png"
    bad.write_text("no picture")
    status, out, err = cli("classify", run_folder, bad, good, "--labels", "dog,cat")
    assert status == 0
    assert "001.png" in out
    assert "bad.jpg" in err
    refused(cli("classify", run_folder, good, "--labels", ","), "label")
    refused(cli("classify", run_folder, good, "--labels", "dog", "--prompt", "a dog"), "{}")
    refused(cli("classify", run_folder, bad, "--labels", "dog,cat"), "could be read")


def test_bad_rows_are_skipped_counted_and_listed(cli, table, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(table.parent, folder)
    (folder / "photos" / "003.png").write_bytes(b"")
    (folder / "photos" / "055.png").write_bytes((folder / "photos" / "055.png").read_bytes()[:200])
    status, _, err = cli("train", "clip", folder / "captions.csv", "--out", tmp_path / "r", *sets())
    assert status == 0, err
    status, _, err = cli("evaluate", tmp_path / "r", folder / "captions.csv")
    assert status == 0
    assert "055.png" in err


def test_an_unwritable_json_path(cli, run_folder, table, tmp_path):
    (tmp_path / "file").write_text("")
    refused(cli("evaluate", run_folder, table, "--json", tmp_path / "file" / "s.json"), "--json")


@pytest.mark.parametrize("caption", ["", "word " * 2000])
def test_empty_and_endless_captions(cli, table, tmp_path, caption):
    lines = table.read_text().splitlines()
    folder = tmp_path / "data"
    shutil.copytree(table.parent, folder)
    (folder / "captions.csv").write_text("\n".join([*lines, f"photos/000.png,{caption},train,x"]) + "\n")
    status, _, err = cli("train", "clip", folder / "captions.csv", "--out", tmp_path / "r", *sets())
    assert status == 0, err
