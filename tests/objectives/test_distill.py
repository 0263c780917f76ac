import math

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.objectives.contrastive import contrastive
from diptych.objectives.distill import Queue, feature_distance, momentum_contrastive, prediction_kl, similarity_kl


def units(count=2, size=6):
    return [F.normalize(torch.randn(size, 4, dtype=torch.float64), dim=1).requires_grad_() for _ in range(count)]


def test_features_by_hand():
    student = torch.tensor([[1.0, 0], [0, 2]])
    teacher = torch.tensor([[0.0, 1], [0, 5]], requires_grad=True)
    assert feature_distance(student, teacher).item() == pytest.approx((1 + 0) / 2)
    assert feature_distance(student, teacher, measure="squared").item() == pytest.approx((2 + 9) / 2)
    assert not feature_distance(student, teacher).requires_grad
    with pytest.raises(UserError, match="unknown measure 'l2'"):
        feature_distance(student, teacher, measure="l2")


def test_predictions_by_hand():
    """The teacher says (1/2, 1/2), the student (1/4, 3/4): KL = ln 2 / 2 + ln(2/3) / 2."""
    student = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64, requires_grad=True)
    teacher = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss = prediction_kl(student, teacher)
    assert loss.item() == pytest.approx((math.log(2) + math.log(2 / 3)) / 2, abs=1e-12)
    assert prediction_kl(3 * student, teacher, temperature=3.0).item() == pytest.approx(9 * loss.item(), abs=1e-12)
    assert prediction_kl(student, student).item() == pytest.approx(0, abs=1e-15)
    assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None,)
    with pytest.raises(UserError, match="temperature is 0"):
        prediction_kl(student, teacher, temperature=0.0)


def test_similarities_by_hand():
    image, text, image_t, text_t = units(4)
    wanted = 0.0
    for p, q in (((3 * image_t @ text_t.T), (5 * image @ text.T)), ((3 * text_t @ image_t.T), (5 * text @ image.T))):
        p, q = p.softmax(1), q.softmax(1)
        wanted += (p * (p / q).log()).sum(1).mean().item() / 2
    got = similarity_kl(image, text, 5.0, image_t, text_t, teacher_scale=3.0)
    assert got.item() == pytest.approx(wanted, abs=1e-12)
    assert got.item() >= 0
    grads = torch.autograd.grad(got, [image_t, text_t], allow_unused=True, retain_graph=True)
    assert grads == (None, None)


def test_a_student_like_its_teacher_costs_nothing():
    image, text = units()
    loss = similarity_kl(image, text, 5.0, image, text, teacher_scale=5.0)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for gradient in torch.autograd.grad(loss, [image, text]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_momentum_without_soft_targets_is_the_contrastive_loss():
    image, text, slow_image, slow_text = units(4)
    loss = momentum_contrastive(image, text, 7.0, slow_image, slow_text, alpha=0.0)
    assert loss.item() == pytest.approx(contrastive(image, text, 7.0).item(), abs=1e-12)


def test_momentum_with_its_own_beliefs_is_at_rest():
    image, text = units()
    scale = torch.tensor(7.0, dtype=torch.float64)
    loss = momentum_contrastive(image, text, scale, image, text, alpha=1.0)
    for gradient in torch.autograd.grad(loss, [image, text]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    assert loss.item() < math.log(6)


def test_momentum_by_hand():
    image, text, slow_image, slow_text = units(4)
    wanted = 0.0
    for logits, slow in (
        (7 * image @ text.T, 7 * slow_image @ slow_text.T),
        (7 * text @ image.T, 7 * slow_text @ slow_image.T),
    ):
        target = 0.4 * slow.softmax(1) + 0.6 * torch.eye(6, dtype=torch.float64)
        wanted += -(target * logits.log_softmax(1)).sum(1).mean().item() / 2
    loss = momentum_contrastive(image, text, 7.0, slow_image, slow_text, alpha=0.4)
    assert loss.item() == pytest.approx(wanted, abs=1e-12)
    assert torch.autograd.grad(loss, [slow_image, slow_text], allow_unused=True) == (None, None)


def test_gradient_check():
    image, text, slow_image, slow_text = units(4, 3)
    fixed = slow_image.detach(), slow_text.detach()
    assert torch.autograd.gradcheck(lambda a, b: momentum_contrastive(a, b, 3.0, *fixed, alpha=0.4), (image, text))
    assert torch.autograd.gradcheck(lambda a, b: similarity_kl(a, b, 3.0, *fixed, teacher_scale=2.0), (image, text))


def test_a_share_out_of_range_is_told():
    with pytest.raises(UserError, match=r"alpha is 1\.5"):
        momentum_contrastive(*units(), 1.0, *units(), alpha=1.5)


def test_momentum_knows_positives_and_those_that_wait():
    image, text, slow_image, slow_text = units(4)
    group, waiting = torch.tensor([0, 1, 0, 3, 4, 5]), torch.tensor([1, 7, -1])
    plain = momentum_contrastive(image, text, 7.0, slow_image, slow_text, alpha=0.0, group=group)
    assert plain.item() == pytest.approx(contrastive(image, text, 7.0, group=group).item(), abs=1e-12)
    old = [side.detach() for side in units(2, 3)]
    wanted = 0.0
    right = (group[:, None] == torch.cat([group, waiting])).double()
    right = right / right.sum(1, keepdim=True)
    assert right[1].tolist() == [0, 0.5, 0, 0, 0, 0, 0.5, 0, 0]
    for mine, theirs, slow in ((image, text, (slow_image, slow_text)), (text, image, (slow_text, slow_image))):
        wait = old[1] if mine is image else old[0]
        target = 0.4 * (7 * slow[0] @ torch.cat([slow[1], wait]).T).softmax(1) + 0.6 * right
        wanted += -(target * (7 * mine @ torch.cat([theirs, wait]).T).log_softmax(1)).sum(1).mean().item() / 2
    queue = Queue(old[0], old[1], waiting)
    loss = momentum_contrastive(image, text, 7.0, slow_image, slow_text, alpha=0.4, group=group, queue=queue)
    assert loss.item() == pytest.approx(wanted, abs=1e-12)
    unnamed = momentum_contrastive(image, text, 7.0, slow_image, slow_text, alpha=0.0, queue=queue)
    negatives = (7 * image @ torch.cat([text, old[1]]).T).log_softmax(1).diagonal().mean()
    negatives = negatives + (7 * text @ torch.cat([image, old[0]]).T).log_softmax(1).diagonal().mean()
    assert unnamed.item() == pytest.approx(-negatives.item() / 2, abs=1e-12)


def test_logits_stay_exact_where_layers_round():
    sides = [side.detach().float() for side in units(4)]
    wanted = momentum_contrastive(*sides[:2], 100.0, *sides[2:], alpha=0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert momentum_contrastive(*sides[:2], 100.0, *sides[2:], alpha=0.4).item() == wanted.item()
