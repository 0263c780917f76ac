import math

import pytest
import torch

from diptych.core.errors import UserError
from diptych.objectives.gan import as_false, as_real, critic_loss, generator_loss, mixed, value

LOGITS = torch.tensor([-2.0, -0.5, 0.0, 1.5], dtype=torch.float64)


def slopes(loss):
    logits = LOGITS.clone().requires_grad_()
    loss(logits).backward()
    return len(LOGITS) * logits.grad  # each row's own, not its share in the mean


def test_a_critic_that_cannot_tell_gives_the_value_of_minus_two_ln_two():
    even = torch.zeros(5, dtype=torch.float64)
    assert value(even, even[:3]).item() == pytest.approx(-1.3862943611, abs=1e-10)
    sure = torch.full((2,), 40.0, dtype=torch.float64)
    assert value(sure, -sure).item() == pytest.approx(0, abs=1e-12)


def test_the_value_is_its_definition():
    real, drawn = LOGITS[:3], LOGITS[1:]
    wanted = torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(drawn)).log().mean()
    torch.testing.assert_close(value(real, drawn), wanted, rtol=1e-12, atol=0)
    logistic = as_real(real).mean() + as_false(drawn).mean()
    torch.testing.assert_close(logistic, -wanted, rtol=1e-12, atol=0)


def test_the_gradient_of_the_generator_vanishes_where_the_critic_is_sure_only_if_it_saturates():
    chance = torch.sigmoid(LOGITS)
    torch.testing.assert_close(slopes(lambda x: generator_loss(x, saturating=True)), -chance, rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes(generator_loss), chance - 1, rtol=1e-12, atol=0)
    assert chance[2].item() == 0.5  # there both are the same
    torch.testing.assert_close(slopes(lambda x: generator_loss(x, game="hinge")), -torch.ones_like(LOGITS))


def test_hinges_stop_at_their_margin():
    torch.testing.assert_close(as_real(LOGITS, game="hinge"), torch.tensor([3.0, 1.5, 1.0, 0.0]).double())
    torch.testing.assert_close(as_false(LOGITS, game="hinge"), torch.tensor([0.0, 0.5, 1.0, 2.5]).double())


def test_no_weight_on_wrong_texts_is_the_conditional_gan():
    real, wrong, drawn = (torch.tensor(x) for x in (0.3, 0.7, 0.2))
    assert critic_loss(real, wrong, drawn, cls_weight=0).item() == pytest.approx(0.5)
    assert critic_loss(real, wrong, drawn, cls_weight=0.5).item() == pytest.approx(0.3 + (0.7 + 0.2) / 2)


def test_the_losses_stay_finite_far_out():
    far = torch.tensor([-1e4, 1e4])
    for game in ("logistic", "hinge"):
        assert math.isfinite((as_real(far, game=game) + as_false(far, game=game)).sum().item())
        assert math.isfinite(generator_loss(far, game=game).item())


def test_texts_are_mixed_by_their_share():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(mixed(one, other, share=0.25), torch.tensor([[0.25, 1.5]]))
    torch.testing.assert_close(mixed(one, other, share=1.0), one)


def test_another_game_is_refused():
    with pytest.raises(UserError, match="did you mean 'hinge'"):
        as_real(LOGITS, game="hinges")
