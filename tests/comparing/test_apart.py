"""Runs in processes of their own: the same numbers, and nothing lost or done twice when somebody is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures import sets

pytestmark = pytest.mark.slow

LONG = sets(steps=60, save_every=5, evaluate_every=0, image_size=16, image_patch=8)


def start(table: Path, out: Path, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "diptych", "compare", table, "clip", "siglip", "--out", out, "--seeds", 1]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in (*command, *LONG, *words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    try:
        out, _ = process.communicate(timeout=150)
        return process.returncode, out.decode()
    finally:
        process.kill()


def wait_for(what, *, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def saved(out: Path, name: str) -> bool:
    return any((out / name / "seed-0" / "resume").glob("*/manifest.json"))


def weights(out: Path) -> list[bytes]:
    return [(out / name / "seed-0" / "model.safetensors").read_bytes() for name in ("clip", "siglip")]


@pytest.fixture(scope="module")
def unbroken(table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    status, told = finish(start(table, out))
    assert status == 0, told
    return out


def test_killed_in_the_second_run_it_goes_on_with_that(table, tmp_path, unbroken):
    process = start(table, tmp_path)
    wait_for(lambda: saved(tmp_path, "siglip"))
    process.kill()
    process.communicate()
    first = (tmp_path / "clip" / "seed-0" / "model.safetensors").stat().st_mtime_ns
    assert not (tmp_path / "siglip" / "seed-0" / "outcome.json").exists()
    status, told = finish(start(table, tmp_path))
    assert status == 0, told
    assert "2 runs, 1 of them finished before" in told
    assert (tmp_path / "clip" / "seed-0" / "model.safetensors").stat().st_mtime_ns == first
    assert weights(tmp_path) == weights(unbroken)


def test_two_at_a_time_are_what_one_after_the_other_is(table, tmp_path, unbroken):
    status, told = finish(start(table, tmp_path, "--jobs", 2))
    assert status == 0, told
    assert weights(tmp_path) == weights(unbroken)
    assert "up to 2 runs at a time" in told
    record = json.loads((tmp_path / "compare.json").read_text())
    assert [run["beside"] for one in record["contestants"] for run in one["runs"]] == [2, 2]
    assert "training 60/60" in (tmp_path / "clip" / "seed-0.log").read_text()


def test_children_of_a_killed_one_save_and_end(table, tmp_path, unbroken):
    process = start(table, tmp_path, "--jobs", 1)
    wait_for(lambda: saved(tmp_path, "clip"))
    process.kill()
    process.communicate()
    status, told = finish(start(table, tmp_path))  # waits for the orphan, should it still be there
    assert status == 0, told
    assert weights(tmp_path) == weights(unbroken)


def test_an_interrupt_stops_the_children_in_good_order(table, tmp_path):
    process = start(table, tmp_path, "--jobs", 1)
    wait_for(lambda: saved(tmp_path, "clip"))
    process.send_signal(signal.SIGINT)
    status, told = finish(process)
    assert status == 130, told
    assert "the same command goes on" in told
    assert "and saved; go on with: diptych compare" in (tmp_path / "clip" / "seed-0.log").read_text()
    assert not (tmp_path / "siglip").exists()


def test_a_child_that_is_killed_is_a_failure_of_its_own(table, tmp_path):
    process = start(table, tmp_path, "--jobs", 1)
    wait_for(lambda: saved(tmp_path, "clip"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    status, told = finish(process)
    assert status == 1, told
    assert "failed: clip, seed 0: its process was killed by signal 9, perhaps for want of memory" in told
    assert (tmp_path / "siglip" / "seed-0" / "outcome.json").exists()
