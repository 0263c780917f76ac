import math

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.objectives.sigmoid import sigmoid

V = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
T = torch.tensor([[0.8, 0.6], [0, 1], [0.28, 0.96]], dtype=torch.float64)


def dense(image, text, scale, bias, group=None):
    group = torch.arange(len(image)) if group is None else group
    sign = 2.0 * (group[:, None] == group) - 1
    return -F.logsigmoid(sign * (scale * image @ text.T + bias)).sum() / len(image)


def test_value_by_hand():
    """One pair of logit 2 * 0.8 - 1 = 0.6 that belongs together."""
    assert sigmoid(V[:1], T[:1], 2.0, -1.0).item() == pytest.approx(math.log(1 + math.exp(-0.6)), abs=1e-12)
    assert sigmoid(V, T, 0.0, 0.0).item() == pytest.approx(3 * math.log(2), abs=1e-12)


@pytest.mark.parametrize("size", [1, 5, 1030])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("scale", [10.0, 300.0])
def test_equals_the_dense_formula_forward_and_backward(size, grouped, scale):
    image, text = (F.normalize(torch.randn(size, 6, dtype=torch.float64), dim=1) for _ in range(2))
    group = torch.randint(0, max(2, size // 3), (size,)) if grouped else None
    wanted, got = [], []
    for loss, grads in ((dense, wanted), (sigmoid, got)):
        numbers = (torch.tensor(x, dtype=torch.float64) for x in (scale, -10.0))
        leaves = [x.clone().requires_grad_() for x in (image, text, *numbers)]
        value = loss(*leaves, group=group)
        grads += [value.detach(), *torch.autograd.grad(3 * value, leaves)]
    for a, b in zip(wanted, got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradient_check():
    leaves = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (2.0, -1.0)]
    assert torch.autograd.gradcheck(sigmoid, [*leaves, *numbers])


def test_without_gradient_it_is_the_same():
    with torch.no_grad():
        assert sigmoid(V, T, 5.0, -3.0).item() == pytest.approx(dense(V, T, 5.0, -3.0).item(), abs=1e-12)


def test_a_loss_near_zero_keeps_its_digits():
    image = F.normalize(torch.randn(50, 16), dim=1)
    wanted = dense(image.double(), image.double(), 60.0, -30.0, None).item()
    assert sigmoid(image, image, 60.0, -30.0).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("bias", [-10.0, 0.0])
def test_bfloat16_tiles_are_as_near_as_autocast(bias):
    middle = F.normalize(torch.randn(300, 64), dim=1)
    vectors = [F.normalize(middle + 0.3 * torch.randn(300, 64), dim=1) for _ in range(2)]
    found = []
    for kind in ("exact", "autocast", "mine"):
        leaves = [x.to(torch.float64 if kind == "exact" else torch.float32).requires_grad_() for x in vectors]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
            loss = sigmoid(*leaves, 10.0, bias, tiles="bf16") if kind == "mine" else dense(*leaves, 10.0, bias)
        found.append(torch.cat(torch.autograd.grad(loss, leaves)).double())
    exact, autocast, mine = found
    assert (mine - exact).norm() < 1.1 * (autocast - exact).norm()
    assert (mine - exact).norm() < 1e-2 * exact.norm()


def test_unknown_tiles_are_told():
    with pytest.raises(UserError, match="unknown tiles 'half'"):
        sigmoid(V, T, 1.0, 0.0, tiles="half")
