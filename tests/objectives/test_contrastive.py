import math

import pytest
import torch
import torch.nn.functional as F

from diptych.objectives.contrastive import contrastive, log_sum_exp

V = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
T = torch.tensor([[0.8, 0.6], [0, 1], [0.28, 0.96]], dtype=torch.float64)


def dense(image, text, scale, group=None, smoothing=0.0):
    logits = scale * image @ text.T
    group = torch.arange(len(image)) if group is None else group
    same = (group[:, None] == group).to(logits.dtype)
    target = (1 - smoothing) * same / same.sum(1, keepdim=True) + smoothing / len(image)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.log_softmax(0).T).sum(1).mean()
    return (rows + columns) / 2


def test_golden_values():
    assert contrastive(V, T, 2.0).item() == pytest.approx(0.9315498879, abs=1e-9)
    assert contrastive(T, V, 2.0).item() == pytest.approx(0.9315498879, abs=1e-9)
    label = torch.tensor([0, 1, 1])
    assert contrastive(V, T, 2.0, group=label).item() == pytest.approx(0.8728832213, abs=1e-9)
    assert contrastive(V, T, 2.0, group=torch.zeros(3).long()).item() == pytest.approx(1.2302165546, abs=1e-9)


def test_equal_similarities_give_ln_n():
    same = torch.ones(7, 3, dtype=torch.float64)
    assert contrastive(same, same, 5.0).item() == pytest.approx(math.log(7), abs=1e-12)


def test_two_positives_of_a_perfect_row_cost_ln_2():
    both = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    loss = contrastive(both, both, 100.0, group=torch.tensor([4, 4, 9, 9]))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("size", [1, 5, 33])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_dense_formula_forward_and_backward(size, grouped, smoothing):
    image, text = (F.normalize(torch.randn(size, 6, dtype=torch.float64), dim=1) for _ in range(2))
    group = torch.randint(0, 4, (size,)) if grouped else None
    wanted, got = [], []
    for loss, grads in ((dense, wanted), (contrastive, got)):
        leaves = [x.clone().requires_grad_() for x in (image, text, torch.tensor(14.3, dtype=torch.float64))]
        value = loss(*leaves, group=group, smoothing=smoothing)
        grads += [value.detach(), *torch.autograd.grad(value, leaves)]
    for a, b in zip(wanted, got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tile", [1, 3, 8, 64])
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e2, 1e5])
def test_tiles_of_any_size_and_logits_of_any_size(tile, factor):
    rows = torch.randn(10, 4, dtype=torch.float64) * factor
    columns = torch.randn(7, 4, dtype=torch.float64)
    rows.requires_grad_(), columns.requires_grad_()
    logits = rows @ columns.T
    wanted = logits.logsumexp(1), logits.logsumexp(0)
    got = log_sum_exp(rows, columns, tile=tile)
    weights = torch.randn(10, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    for a, b in zip(wanted, got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    grads = [
        torch.autograd.grad(sum((w * s).sum() for w, s in zip(weights, sums, strict=True)), (rows, columns))
        for sums in (wanted, got)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_float32_keeps_rows_that_one_shift_would_lose():
    rows = torch.tensor([[300.0, 0.0], [0.0, -300.0]])
    columns = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    got, _ = log_sum_exp(rows, columns)
    torch.testing.assert_close(got, (rows @ columns.T).logsumexp(1))
    assert torch.isfinite(contrastive(rows, columns, 1.0))


def test_gradient_check():
    leaves = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: contrastive(a, b, 2.0), leaves)


def test_order_of_the_batch_changes_nothing():
    order = torch.tensor([2, 0, 1])
    assert contrastive(V[order], T[order], 2.0).item() == pytest.approx(contrastive(V, T, 2.0).item(), abs=1e-12)


def test_half_precision_is_summed_in_float32():
    image, text = (F.normalize(torch.randn(50, 16), dim=1).bfloat16() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive(image, text, 100.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(dense(image.double(), text.double(), 100.0).item(), rel=2e-3)
