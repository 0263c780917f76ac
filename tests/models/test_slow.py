"""The slow average and its queue are the same on one process, on two, and after a stop."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from diptych.core.batch import Batch
from diptych.core.runtime import mean_over_processes
from diptych.models.align.distill import MomentumStudent
from tests.models.align.fixture import make, pairs

WORLD, STEPS, ROWS = 2, 4, 8


def student() -> MomentumStudent:
    torch.manual_seed(1)
    return make("distill", queue=12, alpha_steps=2).train()


def batch(step: int) -> Batch:
    """Let rows of one picture meet over processes, and again in the queue."""
    torch.manual_seed(step)
    return replace(pairs(ROWS), pair_id=(torch.arange(ROWS) * 3 + step) % 10)


def learn(model: MomentumStudent, rows: slice, steps: range) -> dict[str, torch.Tensor]:
    for step in steps:
        model.zero_grad()
        model.loss(batch(step).part(rows)).total.backward()
        with torch.no_grad():
            for value in model.parameters():
                if value.grad is not None:
                    value -= 0.1 * mean_over_processes(value.grad)
        model.after_step()
    return dict(model.state_dict())


def child(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    found = learn(student(), slice(rank * ROWS // WORLD, (rank + 1) * ROWS // WORLD), range(STEPS))
    dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


def test_a_stop_changes_nothing():
    whole = learn(student(), slice(None), range(STEPS))
    first = learn(student(), slice(None), range(2))
    again = student()
    again.load_state_dict(first)
    torch.testing.assert_close(learn(again, slice(None), range(2, STEPS)), whole, rtol=0, atol=0)
    assert int(whole["slow.waiting"]) == 12


@pytest.mark.slow
def test_two_processes_have_the_queue_of_one(tmp_path):
    whole = learn(student(), slice(None), range(STEPS))
    spawn(child, (str(tmp_path),), nprocs=WORLD)
    for rank in range(WORLD):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
