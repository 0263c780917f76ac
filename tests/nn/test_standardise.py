"""Standardising: the mean and deviation of everything seen, padding left out, however it came in batches."""

from __future__ import annotations

import torch

from diptych.nn.standardise import FLOOR, Standardise


def test_it_is_its_formula_over_all_batches():
    layer = Standardise(3)
    x = torch.randn(10, 4, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, -3.0, 7.0])
    mask = torch.rand(10, 4) < 0.7
    assert torch.equal(layer(x), x), "the identity before it has looked"
    bad = x.masked_fill(~mask[..., None], torch.nan)
    for rows in (slice(0, 3), slice(3, 10)):
        layer.look(bad[rows], mask[rows])
    layer.settle()
    real = x[mask].double()
    deviation = real.std(0, correction=0)
    expected = (x.double() - real.mean(0)) / (deviation + FLOOR * deviation.mean())
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)
    assert list(layer.parameters()) == []
    assert set(layer.state_dict()) == {"mean", "factor"}


def test_a_feature_that_never_changes_stays_finite():
    layer = Standardise(2)
    layer.look(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    layer.settle()
    torch.testing.assert_close(layer(torch.tensor([[1.0, 3.0]])), torch.zeros(1, 2))
    assert layer(torch.tensor([[1.5, 3.0]])).abs().max() <= 0.5 / (FLOOR * 0.5) + 1e-3
    still = Standardise(1)
    still.look(torch.ones(5, 1))
    still.settle()
    assert torch.equal(still(torch.ones(1, 1)), torch.zeros(1, 1))
