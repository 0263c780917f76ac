"""Several processes and a real kill: the features are the same, and each is made once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

CHILD = """
import sys, time
from pathlib import Path
import numpy as np
import torch
import torch.distributed as dist
from tests.encoders.test_frozen import Drawn, rows
from diptych.encoders.frozen import image_features
from diptych.encoders.image import ViT
from diptych.encoders.plan import apply_plan

folder, rank, world, pause = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
torch.set_num_threads(1)
torch.manual_seed(0)
tower = apply_plan(ViT(image_size=16, patch=8, dim=16, layers=1, heads=2), "frozen")
source, told = Drawn(40), []

def progress(done, total):
    told.append(done)
    time.sleep(pause)

store = image_features(tower, source, rows(source), keep="tokens", folder=folder, batch_size=4, progress=progress)
np.save(folder / f"result{rank}.npy", store.states(store.readable).tokens.numpy())
assert store.missing.tolist() == [5, 17] and len(store.problems) == 2
print(len(told))
if world > 1:
    dist.destroy_process_group()
"""


def start(folder: Path, rank: int = 0, world: int = 1, pause: float = 0.0) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CHILD, str(folder), str(rank), str(world), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def finish(child: subprocess.Popen[str]) -> int:
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    return int(out)


def test_two_processes_share_the_work(tmp_path: Path):
    children = [start(tmp_path / "two", rank, 2) for rank in (0, 1)]
    batches = [finish(child) for child in children]
    # Ten batches, five each; then both try again the two that hold an unreadable picture.
    assert batches == [5 + 2, 5 + 2]
    assert finish(start(tmp_path / "one")) == 10
    one, *two = (
        np.load(path) for path in [tmp_path / "one" / "result0.npy", *sorted((tmp_path / "two").glob("*.npy"))]
    )
    assert all(np.array_equal(one, part) for part in two)


def test_kill_9_in_the_middle(tmp_path: Path):
    child = start(tmp_path / "killed", pause=0.3)
    deadline = time.monotonic() + 60
    while sum(path.read_bytes().count(b"\1") for path in (tmp_path / "killed").glob("*/done.u8")) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (tmp_path / "killed" / "result0.npy").exists()
    assert 0 < finish(start(tmp_path / "killed")) < 10
    finish(start(tmp_path / "whole"))
    again, whole = (np.load(tmp_path / name / "result0.npy") for name in ("killed", "whole"))
    assert np.array_equal(again, whole)
