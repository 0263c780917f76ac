import pytest
import torch

from diptych.core.errors import UserError
from diptych.objectives.pairs import all_pairs
from diptych.objectives.triplet import pair_distance

V = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
T = torch.tensor([[0.8, 0.6], [0, 1], [0.28, 0.96]], dtype=torch.float64)


def test_by_hand():
    """Two pairs: right ones at distance 3 and 0; wrong ones at 4 (at rest) and 1 (one short of the margin 2)."""
    image = torch.tensor([[0.0, 0], [3, 1]], dtype=torch.float64)
    text = torch.tensor([[3.0, 0], [3, 1]], dtype=torch.float64)
    assert all_pairs(image, text, margin=2.0).item() == pytest.approx((9 + 0 + 0 + 1) / 2, abs=1e-9)


@pytest.mark.parametrize("group", [None, torch.tensor([4, 1, 4])])
def test_equals_all_given_pairs(group):
    names = torch.arange(3) if group is None else group
    left, right = torch.cartesian_prod(torch.arange(3), torch.arange(3)).unbind(1)
    wanted = pair_distance(V[left], T[right], names[left] == names[right], margin=1.1) * 9 / 3
    assert all_pairs(V, T, margin=1.1, group=group).item() == pytest.approx(wanted.item(), abs=1e-9)


def test_it_is_zero_when_all_is_in_its_place_and_never_nan():
    eye = torch.eye(4, dtype=torch.float64, requires_grad=True)
    loss = all_pairs(eye, eye.detach(), margin=1.4)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(eye.grad).all()
    same = torch.ones(3, 2, requires_grad=True)
    all_pairs(same, same.detach()).backward()
    assert torch.isfinite(same.grad).all()
    with pytest.raises(UserError, match="margin is 0"):
        all_pairs(V, T, margin=0)


def test_gradient():
    leaves = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: all_pairs(a, b, margin=2.0), leaves)
