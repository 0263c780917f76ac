import math

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.objectives.contrastive import contrastive
from diptych.objectives.tiles import log_sum_exp

V = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
T = torch.tensor([[0.8, 0.6], [0, 1], [0.28, 0.96]], dtype=torch.float64)


def dense(image, text, scale, group=None, smoothing=0.0, normalisation="both", exclude_positive=False):
    logits = scale * image @ text.T
    group = torch.arange(len(image)) if group is None else group
    same = (group[:, None] == group).to(logits.dtype)
    target = (1 - smoothing) * same / same.sum(1, keepdim=True) + smoothing / len(image)
    among = logits.masked_fill(same.bool(), -math.inf) if exclude_positive else logits
    if normalisation == "joint":
        whole = among.flatten().logsumexp(0)
        rows, columns = whole - (target * logits).sum(1).mean(), whole - (target * logits.T).sum(1).mean()
    else:
        rows = (among.logsumexp(1) - (target * logits).sum(1)).mean()
        columns = (among.logsumexp(0) - (target * logits.T).sum(1)).mean()
    return (rows + columns) / 2


def test_golden_values():
    assert contrastive(V, T, 2.0).item() == pytest.approx(0.9315498879, abs=1e-9)
    assert contrastive(T, V, 2.0).item() == pytest.approx(0.9315498879, abs=1e-9)
    label = torch.tensor([0, 1, 1])
    assert contrastive(V, T, 2.0, group=label).item() == pytest.approx(0.8728832213, abs=1e-9)
    assert contrastive(V, T, 2.0, group=torch.zeros(3).long()).item() == pytest.approx(1.2302165546, abs=1e-9)


def test_golden_values_of_the_variants():
    assert contrastive(V, T, 2.0, normalisation="joint").item() == pytest.approx(2.0663037503, abs=1e-9)
    assert contrastive(V, T, 2.0, exclude_positive=True).item() == pytest.approx(0.3810589779, abs=1e-9)
    rows, _ = log_sum_exp(2.0 * V, T, apart=0)  # the value usually printed has one direction only
    assert (rows - 2.0 * (V * T).sum(1)).mean().item() == pytest.approx(0.2841270824, abs=1e-9)


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
@pytest.mark.parametrize("normalisation", ["both", "joint"])
@pytest.mark.parametrize("exclude_positive", [False, True])
def test_equals_the_dense_formula_forward_and_backward(size, grouped, smoothing, normalisation, exclude_positive):
    size += exclude_positive and size == 1  # one row has no negative
    options = {"smoothing": smoothing, "normalisation": normalisation, "exclude_positive": exclude_positive}
    image, text = (F.normalize(torch.randn(size, 6, dtype=torch.float64), dim=1) for _ in range(2))
    group = torch.randint(0, 4, (size,)) if grouped else None
    wanted, got = [], []
    for loss, grads in ((dense, wanted), (contrastive, got)):
        leaves = [x.clone().requires_grad_() for x in (image, text, torch.tensor(14.3, dtype=torch.float64))]
        value = loss(*leaves, group=group, **options)
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


@pytest.mark.parametrize("factor", [1.0, 1e2, 1e5])
@pytest.mark.parametrize("apart", [2, -3, "numbers"])
def test_products_can_be_left_out(factor, apart):
    rows = (torch.randn(10, 4, dtype=torch.float64) * factor).requires_grad_()
    columns = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    names = torch.randint(0, 4, (10,)), torch.randint(0, 4, (7,))
    out = torch.arange(7) - torch.arange(10)[:, None] == apart if apart != "numbers" else names[0][:, None] == names[1]
    logits = (rows @ columns.T).masked_fill(out, -math.inf)
    got = log_sum_exp(rows, columns, apart=names if apart == "numbers" else apart, tile=4)
    grads = []
    for a, b in zip((logits.logsumexp(1), logits.logsumexp(0)), got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        grads.append([torch.autograd.grad(s.sum(), (rows, columns), retain_graph=True) for s in (a, b)])
    for wanted, mine in grads:
        torch.testing.assert_close(wanted, mine, rtol=1e-9, atol=1e-9)


def test_a_row_with_nothing_left_has_no_sum_and_no_gradient():
    rows, columns = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    names = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0])
    by_row, by_column = log_sum_exp(rows, columns, apart=names)
    assert by_row.isneginf().tolist() == [True, True, False]
    (by_row.nan_to_num(neginf=0).sum() + by_column.sum()).backward()
    assert rows.grad[:2].eq(0).all()
    assert torch.isfinite(rows.grad).all()
    assert torch.isfinite(columns.grad).all()


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


def pairs(size, noise):
    middle = F.normalize(torch.randn(size, 64), dim=1)
    return [F.normalize(middle + noise * torch.randn(size, 64), dim=1) for _ in range(2)]


def errors(loss, vectors, scale):
    """Return the relative error of the loss, the relative L2 error of the gradient and the error of d/dscale."""
    found = []
    for kind, function in ((torch.float64, dense), (torch.float32, loss)):
        leaves = [x.to(kind).requires_grad_() for x in (*vectors, torch.tensor(scale))]
        value = function(*leaves)
        grads = torch.autograd.grad(value, leaves)
        found.append((value.detach().double(), torch.cat(grads[:2]).double(), grads[2].double()))
    (a, b, c), (x, y, z) = found
    return abs(x / a - 1).item(), ((y - b).norm() / b.norm()).item(), (abs(z - c) / abs(c)).item()


@pytest.mark.parametrize(("size", "scale", "noise"), [(300, 14.3, 0.3), (300, 100.0, 0.3), (2100, 50.0, 0.2)])
def test_bfloat16_tiles_are_nearer_than_autocast(size, scale, noise):
    def autocast(image, text, scale):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return dense(image, text, scale)

    vectors = pairs(size, noise)
    mine = errors(lambda i, t, s: contrastive(i, t, s, tiles="bf16"), vectors, scale)
    assert mine[1] < errors(autocast, vectors, scale)[1]
    assert mine[0] < 2e-3
    assert mine[1] < 1e-2
    assert mine[2] < 2e-2


@pytest.mark.parametrize("tiles", ["fp32", "bf16"])
def test_a_loss_near_zero_keeps_its_digits(tiles):
    vectors = pairs(200, 0.02)
    loss, gradient, d_scale = errors(lambda i, t, s: contrastive(i, t, s, tiles=tiles), vectors, 50.0)
    assert loss < (1e-4 if tiles == "fp32" else 0.05)
    assert gradient < (1e-3 if tiles == "fp32" else 0.05)
    assert d_scale < (1e-3 if tiles == "fp32" else 0.05)


def test_bfloat16_tiles_with_positives_too_far_apart_to_work_around():
    image = torch.tensor([[90.0, 0], [0, 1.0], [3.0, 3.0]])
    text = torch.eye(2)[[0, 1, 1]]
    assert contrastive(image, text, 1.0, tiles="bf16").item() == pytest.approx(dense(image, text, 1.0).item(), rel=1e-2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiles": "bf61"}, "unknown tiles 'bf61'; did you mean 'bf16'"),
        ({"normalisation": "rows"}, "unknown normalisation 'rows'"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"exclude_positive": True, "group": torch.zeros(3).long()}, "exclude_positive needs a negative"),
    ],
)
def test_mistakes_are_told(options, words):
    with pytest.raises(UserError, match=words):
        contrastive(V, T, 2.0, **options)
