import pytest
import torch

from diptych.objectives.masked_pixels import masked_pixels, normalised

PATCHES = torch.tensor([[[0.0, 1, 0, 1], [0.2, 0.2, 0.4, 0.4], [1, 1, 1, 1]]], dtype=torch.float64)
HIDDEN = torch.tensor([[True, False, True]])


def test_raw_pixels_by_hand():
    predicted = torch.full_like(PATCHES, 0.5)
    loss = masked_pixels(predicted, PATCHES, HIDDEN, normalise=False)
    assert loss.item() == pytest.approx(0.25, abs=1e-12)


def test_normalised_pixels_by_hand():
    """The first patch has mean .5 and unbiased variance 1/3; the last is flat and becomes 0."""
    loss = masked_pixels(torch.zeros_like(PATCHES), PATCHES, HIDDEN)
    assert loss.item() == pytest.approx((0.25 / (1 / 3 + 1e-6) + 0) / 2, abs=1e-12)


def test_the_mean_costs_all_but_one_degree_of_freedom():
    patches = torch.rand(2, 5, 48, dtype=torch.float64)
    loss = masked_pixels(torch.zeros_like(patches), patches, torch.ones(2, 5, dtype=torch.bool))
    assert loss.item() == pytest.approx(47 / 48, abs=1e-4)
    torch.testing.assert_close(normalised(patches).mean(-1), torch.zeros(2, 5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_visible_patches_get_no_gradient():
    predicted = torch.randn_like(PATCHES).requires_grad_()
    masked_pixels(predicted, PATCHES, HIDDEN).backward()
    assert predicted.grad[~HIDDEN].eq(0).all()
    assert predicted.grad[HIDDEN].ne(0).any()


def test_nothing_hidden_costs_nothing():
    predicted = torch.randn_like(PATCHES).requires_grad_()
    loss = masked_pixels(predicted, PATCHES, torch.zeros_like(HIDDEN))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(predicted.grad, torch.zeros_like(PATCHES))


def test_gradient_check():
    predicted = torch.randn_like(PATCHES).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_pixels(x, PATCHES, HIDDEN), predicted)
