"""One process with the whole batch and two processes with half of it each give the same loss and the same gradients."""

import resource

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from diptych.core.runtime import mean_over_processes
from diptych.objectives.adversarial import reverse_gradient, tell_apart
from diptych.objectives.contrastive import contrastive
from diptych.objectives.distill import Queue, feature_distance, momentum_contrastive, similarity_kl
from diptych.objectives.masked_pixels import masked_pixels
from diptych.objectives.mmd import mean_distance, mmd
from diptych.objectives.regress import regress
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.triplet import pair_distance, triplet

pytestmark = pytest.mark.slow

ROWS, WORLD = 8, 2


def whole_batch():
    """Return the inputs of both sides and what goes with each row; the halves differ in every count."""
    make = torch.Generator().manual_seed(5)
    batch = {name: torch.randn(ROWS, 5, generator=make, dtype=torch.float64) for name in ("image", "text", "c", "d")}
    batch["group"] = torch.tensor([3, 1, 1, 0, 1, 4, 3, 9])
    batch["first"] = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0]).bool()
    batch["hidden"] = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 1], [0, 0], [0, 1], [0, 0], [0, 0]]).bool()
    return batch


def waiting():
    """Return what every process holds of earlier batches."""
    make = torch.Generator().manual_seed(7)
    image, text = (torch.randn(3, 4, generator=make, dtype=torch.float64) for _ in range(2))
    return Queue(image, text, torch.tensor([1, 9, -1]))


CASES = {
    "contrastive": lambda m, b: contrastive(*m, m.scale),
    "contrastive_group": lambda m, b: contrastive(*m, m.scale, group=b["group"]),
    "contrastive_smoothing": lambda m, b: contrastive(*m, m.scale, smoothing=0.1),
    "contrastive_group_smoothing": lambda m, b: contrastive(*m, m.scale, group=b["group"], smoothing=0.1),
    "contrastive_joint": lambda m, b: contrastive(*m, m.scale, normalisation="joint"),
    "contrastive_excluded": lambda m, b: contrastive(*m, m.scale, exclude_positive=True),
    "contrastive_excluded_group": lambda m, b: contrastive(*m, m.scale, group=b["group"], exclude_positive=True),
    "contrastive_sharp": lambda m, b: contrastive(*m, 300 * m.scale),
    "sigmoid": lambda m, b: sigmoid(*m, m.scale, m.bias),
    "sigmoid_group": lambda m, b: sigmoid(*m, m.scale, m.bias, group=b["group"]),
    "triplet": lambda m, b: triplet(*m, group=b["group"]),
    "triplet_sum": lambda m, b: triplet(*m, hardest=0.7, mean=False, similarity="euclidean"),
    "pair_distance": lambda m, b: pair_distance(*m, b["group"] == 1),
    "feature_distance": lambda m, b: feature_distance(*m),
    "similarity_kl": lambda m, b: similarity_kl(*m, m.scale, b["c"], b["d"], teacher_scale=2.0),
    "momentum": lambda m, b: momentum_contrastive(*m, m.scale, b["c"][:, :4], b["d"][:, :4], alpha=0.4),
    "momentum_group": lambda m, b: momentum_contrastive(
        *m, m.scale, b["c"][:, :4], b["d"][:, :4], alpha=0.4, group=b["group"], queue=waiting()
    ),
    "tell_apart": lambda m, b: tell_apart(reverse_gradient(m.image, strength=0.3).sum(1), b["first"]),
    "mmd": lambda m, b: mmd(*m),
    "mmd_unbiased": lambda m, b: mmd(*m, unbiased=True),
    "mean_distance": lambda m, b: mean_distance(*m),
    "masked_pixels": lambda m, b: masked_pixels(m.image.view(-1, 2, 2), b["c"][:, :4].reshape(-1, 2, 2), b["hidden"]),
    "regress": lambda m, b: regress(m.image.view(-1, 2, 2), b["c"][:, :4].reshape(-1, 2, 2), b["hidden"]),
}


class Towers(nn.Module):
    """Two linear towers with a scale and a bias; unpacks into its latest pictures and texts."""

    def __init__(self, case):
        super().__init__()
        make = torch.Generator().manual_seed(6)
        self.heads = nn.ParameterList(torch.randn(5, 4, generator=make, dtype=torch.float64) for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))
        self.case = case

    def __iter__(self):
        return iter((self.image, self.text))

    def forward(self, batch):
        self.image = F.normalize(batch["image"] @ self.heads[0], dim=1)
        self.text = F.normalize(batch["text"] @ self.heads[1], dim=1)
        return CASES[self.case](self, batch)


def found(case, batch, wrap=lambda model: model):
    model = Towers(case)
    wrapped = wrap(model)
    loss = wrapped(batch)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    return {"loss": mean_over_processes(loss.detach()), **grads}


def child(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    rows = slice(rank * ROWS // WORLD, (rank + 1) * ROWS // WORLD)
    batch = {name: value[rows] for name, value in whole_batch().items()}
    ddp = {
        case: found(case, batch, lambda m: DistributedDataParallel(m, find_unused_parameters=True)) for case in CASES
    }
    dist.destroy_process_group()
    if rank == 0:
        vectors = [F.normalize(torch.randn(20, 4), dim=1).requires_grad_() for _ in range(2)]
        values = [loss(*vectors, 5.0) for loss in (contrastive, torch.compile(contrastive, backend="aot_eager"))]
        grads = [torch.autograd.grad(value, vectors) for value in values]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        many = [torch.randn(8000, 16, requires_grad=True) for _ in range(2)]
        (contrastive(*many, 5.0) + sigmoid(*many, 5.0, -5.0)).backward()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        torch.save(
            {"grown": grown, "cases": ddp, "values": values, "grads": [list(g) for g in grads]}, f"{folder}/found.pt"
        )


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    spawn(child, (str(folder),), nprocs=WORLD)
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case, of_two):
    one, two = found(case, whole_batch()), of_two["cases"][case]
    assert one.keys() == two.keys()
    assert len(one) > 1
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


def test_the_matrix_is_never_whole(of_two):
    """8,000 x 8,000 similarities are 244 MiB; the tiles and what torch keeps for itself stay far below."""
    assert of_two["grown"] < 60


def test_compiled_it_gives_the_same(of_two):
    torch.testing.assert_close(*of_two["values"])
    torch.testing.assert_close(*of_two["grads"])
