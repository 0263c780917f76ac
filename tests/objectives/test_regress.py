import pytest
import torch
import torch.nn.functional as F

from diptych.objectives.regress import averaged_layers, regress


@pytest.mark.parametrize(("error", "wanted"), [(1.0, 0.25), (2.0, 1.0), (3.0, 2.0)])
def test_value_by_hand(error, wanted):
    """With beta 2: error^2 / 4 up to 2, then error - 1."""
    zeros = torch.zeros(1, 2, 3)
    hidden = torch.tensor([[True, False]])
    assert regress(zeros + error, zeros, hidden).item() == pytest.approx(wanted)


def test_equals_torch_on_what_is_hidden():
    predicted, target = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    hidden = torch.rand(2, 5) < 0.5
    wanted = F.smooth_l1_loss(predicted[hidden], target[hidden], beta=0.7)
    assert regress(predicted, target, hidden, beta=0.7).item() == pytest.approx(wanted.item(), abs=1e-12)
    assert regress(predicted, target, torch.zeros_like(hidden)).item() == 0.0


def test_targets_are_normalised_averaged_and_fixed():
    layers = [(torch.randn(2, 3, 8, dtype=torch.float64) * 5 + 2).requires_grad_() for _ in range(2)]
    one = averaged_layers(layers[:1])
    torch.testing.assert_close(one.mean(-1), torch.zeros(2, 3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(one.var(-1, unbiased=False), torch.ones(2, 3, dtype=torch.float64), atol=1e-5, rtol=0)
    both = averaged_layers(layers)
    torch.testing.assert_close(both, (one + averaged_layers(layers[1:])) / 2)
    assert not both.requires_grad


def test_gradient_check():
    target, hidden = torch.randn(2, 3, 4, dtype=torch.float64), torch.rand(2, 3) < 0.6
    predicted = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: regress(x, target, hidden), predicted)
