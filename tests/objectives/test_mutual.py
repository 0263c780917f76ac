import torch

from diptych.objectives.distill import prediction_kl
from diptych.objectives.mutual import mutual_kl


def logits():
    return (torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))


def test_it_vanishes_where_both_predict_the_same():
    one, _ = logits()
    shifted = (one.detach() + 3.0).requires_grad_()  # a constant more changes no prediction
    found = mutual_kl(one, shifted)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)
    found.sum().backward()
    torch.testing.assert_close(one.grad, torch.zeros_like(one), rtol=0, atol=1e-12)


def test_it_is_each_teaching_the_other():
    one, other = logits()
    wanted = 5 * (prediction_kl(one, other) + prediction_kl(other, one))
    torch.testing.assert_close(mutual_kl(one, other).sum(), wanted, rtol=1e-10, atol=1e-10)


def test_each_learns_from_its_own_term_alone():
    one, other = logits()
    mutual_kl(one, other).sum().backward()
    mine, theirs = one.grad.clone(), other.grad.clone()
    one.grad = other.grad = None
    prediction_kl(one, other).backward()
    torch.testing.assert_close(mine, 5 * one.grad, rtol=1e-10, atol=1e-10)
    assert other.grad is None
    prediction_kl(other, one).backward()
    torch.testing.assert_close(theirs, 5 * other.grad, rtol=1e-10, atol=1e-10)


def test_no_rows_give_no_rows():
    assert mutual_kl(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
