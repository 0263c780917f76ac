from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.core.errors import UserError
from diptych.embedding import Work, compute_here, finished, join


@pytest.fixture
def pictures(table, tmp_path) -> Path:
    """Copy the table and break two of its pictures, the 5th and the 52nd."""
    shutil.copytree(table.parent, tmp_path / "data")
    for number in (5, 52):
        (tmp_path / "data" / "photos" / f"{number:03}.png").write_bytes(b"no picture")
    return tmp_path / "data" / table.name


def _read(out: Path) -> tuple[np.ndarray, np.ndarray, list[dict], list[dict]]:
    files = [(out / name).read_text().splitlines() for name in ("keys.jsonl", "skipped.jsonl")]
    lines = [[json.loads(line) for line in file] for file in files]
    return np.load(out / "images.npy"), np.load(out / "texts.npy"), *lines


def test_shards_are_joined_to_what_the_predictor_computes(run_folder, pictures, tmp_path):
    work, told = Work(str(run_folder), str(pictures), {}, shard=16), []
    missing = work.begin(tmp_path / "v")
    assert missing == [0, 1, 2, 3]
    compute_here(work, tmp_path / "v", missing, told.append)
    assert sum(told) == 60
    assert len(told) >= 4
    done = join(work, tmp_path / "v")
    images, texts, keys, skipped = _read(tmp_path / "v")
    assert (done.pictures, done.captions) == (len(images), len(texts)) == (58, 116)
    assert [key["key"] for key in keys] == [f"photos/{i:03}.png" for i in range(60) if i not in (5, 52)]
    assert [key["split"] for key in keys].count("dev") == 10
    assert [one.where for one in done.skipped] == [one["where"] for one in skipped]
    assert ["005.png" in one.where or "052.png" in one.where for one in done.skipped] == [True, True]
    model = diptych.load(run_folder, device="cpu")
    again = model.embed_image([pictures.parent / key["key"] for key in keys[40:]])
    np.testing.assert_allclose(images[40:], again, atol=1e-5)  # batches of another size
    captions = work.source.row(59).captions
    np.testing.assert_allclose(texts[-2:], model.embed_text(captions), atol=1e-5)
    assert sorted(file.name for file in (tmp_path / "v").iterdir()) == [
        "images.npy",
        "job.json",
        "keys.jsonl",
        "skipped.jsonl",
        "texts.npy",
    ]


def test_after_a_stop_only_what_is_missing_is_computed(run_folder, pictures, tmp_path):
    work, out = Work(str(run_folder), str(pictures), {}, shard=16), tmp_path / "v"
    work.compute(out, work.begin(out)[2])
    (out / "shards" / "000001.4711").write_bytes(b"half a shard, of a process that was killed")
    again = Work(str(run_folder), str(pictures), {}, shard=16)
    assert again.begin(out) == [0, 1, 3]
    compute_here(again, out, [0, 1, 3], int)
    assert not finished(out)
    join(again, out)
    assert finished(out)
    whole = tmp_path / "whole"
    compute_here(work, whole, work.begin(whole), int)
    join(work, whole)
    for ours, expected in zip(_read(out), _read(whole), strict=True):
        assert np.array_equal(ours, expected)


def test_typed_again_the_verb_does_nothing_and_other_work_is_refused(cli, run_folder, pictures, tmp_path, monkeypatch):
    status, out, err = cli("embed", run_folder, pictures, "--out", tmp_path / "v")
    assert status == 0
    assert "58 pictures and 116 captions" in out
    assert "2 skipped" in out
    assert err.count("skipped ") == 2
    monkeypatch.setattr(Work, "compute", None)
    assert cli("embed", run_folder, pictures, "--out", tmp_path / "v")[1].splitlines()[-1] == out.splitlines()[-1]
    status, _, err = cli("embed", run_folder, pictures, "--out", tmp_path / "v", "--split", "dev")
    assert status == 2
    assert "holds the vectors of something else (another split, pictures): give --out a new folder" in err
    status, _, err = cli("embed", run_folder, pictures, "--out", tmp_path / "w", "--engine", "rat")
    assert status == 2
    assert "unknown engine 'rat'; did you mean 'ray'" in err


def test_pictures_of_which_none_can_be_read(run_folder, pictures, tmp_path):
    for file in (pictures.parent / "photos").iterdir():
        file.write_bytes(b"no picture")
    work = Work(str(run_folder), str(pictures), {})
    compute_here(work, tmp_path / "v", work.begin(tmp_path / "v"), int)
    with pytest.raises(UserError, match="none of the pictures could be read"):
        join(work, tmp_path / "v")


@pytest.mark.slow
def test_a_ray_cluster_writes_the_same(run_folder, pictures, tmp_path):
    ray = pytest.importorskip("ray")
    from diptych.embedding_ray import compute_with_ray

    work, told = Work(str(run_folder), str(pictures), {}, device="cpu", shard=16), []
    for out in ("local", "ray"):
        missing = work.begin(tmp_path / out)
        if out == "local":
            compute_here(work, tmp_path / out, missing, int)
        else:
            work.compute(tmp_path / out, 1)
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            try:
                compute_with_ray(work, tmp_path / out, [0, 2, 3], told.append)
            finally:
                ray.shutdown()
        join(work, tmp_path / out)
    assert sorted(told) == [12, 16, 16]
    for ours, expected in zip(_read(tmp_path / "ray"), _read(tmp_path / "local"), strict=True):
        if isinstance(ours, np.ndarray):
            np.testing.assert_allclose(ours, expected, atol=1e-6)  # another number of threads
        else:
            assert ours == expected


def test_without_ray_the_extra_is_named(run_folder, pictures, tmp_path, monkeypatch):
    from diptych.embedding_ray import compute_with_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    work = Work(str(run_folder), str(pictures), {})
    with pytest.raises(UserError, match=r"--engine ray needs Ray: pip install 'diptych\[ray\]'"):
        compute_with_ray(work, tmp_path, [0], int)
