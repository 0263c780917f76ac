import math

import pytest
import torch

from diptych.core.errors import UserError
from diptych.objectives.mmd import mean_distance, mmd

X = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
ONE = {"sigma": 1.0, "factors": (1.0,)}


def by_loops(source, target, variances, unbiased):
    """Add up kernels pair by pair."""

    def kernel(a, b):
        square = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        return sum(math.exp(-square / (2 * v)) for v in variances) / len(variances)

    def within(rows):
        pairs = [kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if not (unbiased and i == j)]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in source for b in target]
    return within(source) + within(target) - 2 * sum(across) / len(across)


def test_golden_values():
    assert mmd(X, X, **ONE).item() == pytest.approx(0, abs=1e-15)
    assert mmd(X, X, unbiased=True, **ONE).item() == pytest.approx(-0.3934693403, abs=1e-10)
    assert mmd(X, X + 2, **ONE).item() == pytest.approx(1.1623755484, abs=1e-10)
    assert mmd(X, X + 2, unbiased=True, **ONE).item() == pytest.approx(0.7689062081, abs=1e-10)


@pytest.mark.parametrize("unbiased", [False, True])
def test_equals_loops_with_several_kernels_and_ragged_samples(unbiased):
    source, target = torch.randn(5, 3, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64) + 1
    square = torch.cdist(torch.cat([source, target]), torch.cat([source, target])).square()
    middle = square.sum().item() / (13 * 12)
    wanted = by_loops(source.tolist(), target.tolist(), [f * middle for f in (0.25, 0.5, 1, 2, 4)], unbiased)
    assert mmd(source, target, unbiased=unbiased).item() == pytest.approx(wanted, abs=1e-10)
    assert mmd(target, source, unbiased=unbiased).item() == pytest.approx(wanted, abs=1e-10)


def test_two_normal_distributions_one_apart():
    source, target = torch.randn(2000, 1), torch.randn(2000, 1) + 1
    assert mmd(source, target, **ONE).item() == pytest.approx(0.177268, abs=0.03)


def test_linear_kernel_compares_means():
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    wanted = (a @ a.T).mean() + (b @ b.T).mean() - 2 * (a @ b.T).mean()
    assert mean_distance(a, b).item() == pytest.approx(wanted.item(), abs=1e-12)


def test_equal_rows_have_a_finite_gradient():
    same = torch.ones(3, 2, requires_grad=True)
    loss = mmd(same, torch.ones(3, 2))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(same.grad).all()


def test_gradient_check():
    leaves = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: mmd(a, b, sigma=1.3), leaves)


def test_too_few_rows_are_told():
    with pytest.raises(UserError, match="discrepancy of 1 and 2 rows"):
        mmd(X[:1], X, unbiased=True)
    with pytest.raises(UserError, match="discrepancy of 0 and 2 rows"):
        mmd(X[:0], X)
