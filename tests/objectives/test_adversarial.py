import math

import pytest
import torch

from diptych.core.errors import UserError
from diptych.objectives.adversarial import reversal_strength, reverse_gradient, tell_apart


def test_reversal_by_hand():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = reverse_gradient(x, strength=0.3)
    assert torch.equal(x, y)
    y.backward(torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(x.grad, torch.tensor([-0.6, 0.3]))


def test_strength_at_known_points():
    found = [reversal_strength(p, top=1.0) for p in (0, 0.1, 0.5, 1)]
    assert found == pytest.approx([0, 0.462117, 0.986614, 0.999909], abs=1e-6)
    assert reversal_strength(1.0) == pytest.approx(0.3 * 0.999909, abs=1e-6)
    with pytest.raises(UserError, match=r"progress is 1\.2"):
        reversal_strength(1.2)


def test_a_judge_without_a_clue_pays_ln_2():
    assert tell_apart(torch.zeros(5), torch.tensor([True, True, True, False, True])).item() == pytest.approx(
        math.log(2)
    )


def test_both_kinds_weigh_the_same():
    logits = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64, requires_grad=True)
    first = torch.tensor([True, False, False])
    softplus = [math.log(1 + math.exp(x)) for x in (-2, 1, -1)]
    loss = tell_apart(logits, first)
    assert loss.item() == pytest.approx((softplus[0] + (softplus[1] + softplus[2]) / 2) / 2, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: tell_apart(x, first), logits)


def test_a_missing_kind_is_left_out():
    loss = tell_apart(torch.tensor([0.0, 1.0]), torch.tensor([True, True]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-1))) / 2, abs=1e-6)
    assert tell_apart(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).item() == 0.0


def test_the_judge_learns_and_the_features_forget():
    features, weight = torch.randn(8, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    first = torch.arange(8) < 4
    plain = torch.autograd.grad(tell_apart(features @ weight, first), [features, weight])
    turned = torch.autograd.grad(
        tell_apart(reverse_gradient(features, strength=0.25) @ weight, first), [features, weight]
    )
    torch.testing.assert_close(turned[0], -0.25 * plain[0])
    torch.testing.assert_close(turned[1], plain[1])
