"""Two processes with half of a batch each give every system the loss and the whole gradient of one process."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from diptych.core.model import Phased
from diptych.core.runtime import mean_over_processes
from tests.models.systems import CASES, make_batch

pytestmark = pytest.mark.slow

WORLD = 2


def whole_batch():
    """Let two rows of one picture and two equal captions be on different processes, each with both domains alike."""
    batch = make_batch(8)
    batch.tokens[6], batch.token_mask[6] = batch.tokens[2], batch.token_mask[2]
    picture, label = torch.tensor([0, 1, 2, 3, 0, 5, 6, 7]), torch.tensor([0, 1, 2, 0, 0, 1, 2, 1])
    return replace(batch, pair_id=picture, label=label, domain=torch.arange(8) % 2)


def found(case, batch):
    model = case.build().eval()
    phases = model.phases() if isinstance(model, Phased) else {"main": list(model.parameters())}
    values = {}
    for phase, members in phases.items():
        model.zero_grad(set_to_none=True)
        loss = model.loss(batch, phase).total
        loss.backward()
        moved = {id(value) for value in members}
        grads = {n: p.grad for n, p in model.named_parameters() if id(p) in moved and p.grad is not None}
        values |= {f"{phase} {name}": mean_over_processes(value) for name, value in {"loss": loss, **grads}.items()}
    return values


def child(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    batch = whole_batch()
    rows = slice(rank * len(batch) // WORLD, (rank + 1) * len(batch) // WORLD)
    ours = {str(case): found(case, batch.part(rows)) for case in CASES}
    dist.destroy_process_group()
    if rank == 0:
        torch.save(ours, f"{folder}/found.pt")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    spawn(child, (str(folder),), nprocs=WORLD)
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_equal_one(case, of_two):
    one, two = found(case, whole_batch()), of_two[str(case)]
    assert one.keys() == two.keys()
    for name in [name for name in one if name.endswith(" loss")]:
        torch.testing.assert_close(two.pop(name), one.pop(name), rtol=1e-5, atol=1e-6)
    difference = torch.cat([(two[name] - value).flatten() for name, value in one.items()]).norm()
    # The joint space is float32: only the order of its sums differs.
    assert difference <= 1e-5 * torch.cat([value.flatten() for value in one.values()]).norm()
