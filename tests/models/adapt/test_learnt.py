"""Adaptation on handwritten digits of 8 x 8 pixels, against the same digits behind a fixed texture."""

from functools import cache

import numpy as np
import pytest
import torch

from diptych import models
from diptych.core.batch import Batch, DataSpec, States
from diptych.core.model import AfterStep

STEPS = 400
SPEC = DataSpec(image_size=16, classes=tuple("0123456789"))


def states(x: torch.Tensor) -> States:
    return States(torch.zeros(len(x), 0, 64), torch.zeros(len(x), 0, dtype=torch.bool), x)


def domains(gap: float, seed: int):
    """Return source pictures with labels, and target ones with labels that only the score may see."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    random = np.random.default_rng(seed)
    order = random.permutation(len(x))
    x, y = torch.tensor(x[order] / 16).float(), torch.tensor(y[order]).long()
    texture = torch.tensor(random.random(64)).float()
    half = len(x) // 2
    return x[:half], y[:half], (1 - gap) * x[half:] + gap * texture, y[half:]


@cache
def accuracy(system: str, gap: float, seed: int, **settings: object) -> float:
    source, label, target, hidden = domains(gap, seed)
    config = (
        models.load(system)
        .Config(
            image_dim=64, image_heads=2, image_layers=1, standardise=False, head="mlp", hidden=64, dim=64, dropout=0.0
        )
        .model_copy(update=settings)
    )
    torch.manual_seed(seed)
    model = models.load(system).build(config, SPEC)
    optimizer = torch.optim.AdamW([p for n, p in model.named_parameters() if "tower" not in n], lr=2e-3)
    random = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        mine, theirs = (torch.randint(len(x), (64,), generator=random) for x in (source, target))
        batch = Batch(
            image_states=states(torch.cat([source[mine], target[theirs]])),
            label=torch.cat([label[mine], torch.full((64,), -1)]),
            domain=torch.tensor([0] * 64 + [1] * 64),
        )
        optimizer.zero_grad()
        model.loss(batch).total.backward()
        optimizer.step()
        if isinstance(model, AfterStep):
            model.after_step()
    model.eval()
    with torch.no_grad():
        guess = model.logits(model.features(Batch(image_states=states(target)))).argmax(1)
    return (guess == hidden).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "gap", "settings"),
    [
        ("mmd", 0.5, {"ramp_steps": STEPS}),
        ("mmd", 0.5, {"ramp_steps": STEPS, "kernels": "one", "match": "features"}),
        ("dann", 0.5, {"ramp_steps": STEPS}),
    ],
)
def test_adapting_beats_learning_from_the_source_alone(system, gap, settings):
    plain = [accuracy("fine_tune", gap, seed) for seed in range(2)]
    adapted = [accuracy(system, gap, seed, **settings) for seed in range(2)]
    assert np.mean(adapted) > np.mean(plain) + 0.05, (plain, adapted)
