"""Dropout by bytes: the right share is lost, what is left makes up for it, and the seed decides."""

import pytest
import torch

from diptych.nn.dropout import Dropout


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_the_share_and_the_mean_are_kept(chance):
    dropout = Dropout(chance).train()
    torch.manual_seed(0)
    x = torch.ones(1000, 333, requires_grad=True)  # no multiple of eight
    y = dropout(x)
    real = round(256 * chance) / 256
    assert float((y == 0).double().mean()) == pytest.approx(real, abs=0.003)  # four deviations of a share of 333,000
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - real)])
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_neighbours_are_lost_independently():
    torch.manual_seed(0)
    lost = (Dropout(0.5).train()(torch.ones(80_000)) == 0).double().view(-1, 8)
    assert (lost.mean(0) - 0.5).abs().max() < 0.02  # 100 * (0.02 / 0.005) ** 2: four deviations
    together = torch.corrcoef(lost.T) - torch.eye(8)
    assert together.abs().max() < 0.05


def test_the_seed_decides():
    dropout, x = Dropout(0.3).train(), torch.ones(100)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(dropout(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_nothing_is_lost_in_evaluation_and_the_ends_are_those_of_torch(chance):
    x = torch.randn(50)
    assert torch.equal(Dropout(chance).eval()(x), x)
    if chance != 0.5:
        assert torch.equal(Dropout(chance).train()(x), torch.nn.Dropout(chance).train()(x))
