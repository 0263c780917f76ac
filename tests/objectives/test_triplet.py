import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.objectives.triplet import pair_distance, similarities, triplet

V = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
T = torch.tensor([[0.8, 0.6], [0, 1], [0.28, 0.96]], dtype=torch.float64)


def by_hand(scores, group, margin, hardest):
    """Sum the hinges of every row and column with loops."""
    total = 0.0
    for s in (scores, scores.T):
        for i in range(len(s)):
            hinges = [max(0.0, float(margin - s[i, i] + s[i, j])) for j in range(len(s)) if group[i] != group[j]]
            total += (1 - hardest) * sum(hinges) + hardest * max(hinges, default=0.0)
    return total


def test_golden_values():
    assert triplet(V, T, margin=0.2, mean=False).item() == pytest.approx(1.872, abs=1e-12)
    assert triplet(V, T, margin=0.2, mean=False, hardest=1.0).item() == pytest.approx(1.536, abs=1e-12)
    assert triplet(V, T, margin=0.2).item() == pytest.approx(1.872 / 3, abs=1e-12)


@pytest.mark.parametrize("hardest", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_equals_loops(hardest, similarity):
    image, text = (torch.randn(7, 4, dtype=torch.float64) for _ in range(2))
    group = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    scores = image @ text.T if similarity == "dot" else -torch.cdist(image, text)
    got = triplet(image, text, hardest=hardest, group=group, similarity=similarity, mean=False)
    assert got.item() == pytest.approx(by_hand(scores, group.tolist(), 0.2, hardest), abs=1e-9)


def test_two_rows_make_the_sum_and_the_hardest_equal():
    assert triplet(V[:2], T[:2]).item() == pytest.approx(triplet(V[:2], T[:2], hardest=1.0).item(), abs=1e-12)


def test_nothing_when_every_margin_is_met_or_no_partner_is_wrong():
    eye = torch.eye(4, requires_grad=True)
    assert triplet(eye, eye, margin=0.9).item() == 0.0
    loss = triplet(eye, eye.flip(0), group=torch.zeros(4).long(), hardest=0.5)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(eye.grad, torch.zeros(4, 4))
    assert triplet(V[:1], T[:1]).item() == 0.0


def test_gradient_of_the_right_partner_counts_the_hinges():
    eye = torch.eye(3, dtype=torch.float64)
    scores = (V @ T.T).requires_grad_()
    triplet(eye, scores.T, mean=False).backward()  # eye @ scores: the similarities are the leaf itself
    active = (0.2 - scores.diagonal()[:, None] + scores > 0).sum(1) + (0.2 - scores.diagonal() + scores > 0).sum(0) - 2
    assert scores.grad.diagonal().tolist() == (-active).tolist()


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_gradient_check(similarity):
    leaves = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: triplet(a, b, hardest=0.4, similarity=similarity), leaves)


def test_equal_vectors_have_a_finite_gradient_under_distance():
    same = torch.ones(3, 2, requires_grad=True)
    triplet(same, same.detach(), similarity="euclidean").backward()
    assert torch.isfinite(same.grad).all()


def test_distance_and_cosine_rank_unit_vectors_alike():
    a, b = (F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1) for _ in range(2))
    square = similarities(a, b, kind="euclidean").square()
    torch.testing.assert_close(square, 2 - 2 * similarities(a, b), rtol=1e-9, atol=1e-9)


def test_pairs_by_hand():
    """Distances 5 (right), 5 (wrong, beyond the margin 6 by -1), 0 (wrong)."""
    image = torch.tensor([[3.0, 4], [0, 0], [1, 1]], dtype=torch.float64, requires_grad=True)
    text = torch.tensor([[0.0, 0], [3, 4], [1, 1]], dtype=torch.float64)
    loss = pair_distance(image, text, torch.tensor([True, False, False]), margin=6.0)
    assert loss.item() == pytest.approx((25 + 1 + 36) / 3, abs=1e-4)
    loss.backward()
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "margin is 0.0"),
        ({"hardest": 1.5}, "hardest is 1.5"),
        ({"similarity": "euclid"}, "did you mean 'euclidean'"),
    ],
)
def test_mistakes_are_told(options, words):
    with pytest.raises(UserError, match=words):
        triplet(V, T, **options)
