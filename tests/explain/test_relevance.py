import pytest
import torch

from diptych.core.errors import UserError
from diptych.explain.relevance import Both, positive, relevance
from diptych.explain.rollout import Step

UNIFORM = torch.full((1, 4, 4), 0.25)


def test_one_uniform_layer_with_gradient_one():
    found = relevance([Step(positive(UNIFORM, torch.ones(1, 4, 4)))])
    assert found[0].tolist() == [1.25, 0.25, 0.25, 0.25]


def test_no_gradient_gives_the_identity():
    seen = Step(positive(UNIFORM, torch.zeros(1, 4, 4)))
    assert torch.equal(relevance([seen, seen]), torch.eye(4))


def test_what_speaks_against_is_cut_off_before_heads_are_averaged():
    gradient = torch.stack([torch.ones(4, 4), -torch.ones(4, 4)])
    assert torch.equal(positive(UNIFORM.expand(2, 4, 4), gradient), torch.full((4, 4), 0.125))


def test_two_layers_by_hand():
    one, two = torch.rand(3, 3, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64)
    own = torch.eye(3, dtype=torch.float64)
    expected = own + one + two @ (own + one)
    assert torch.allclose(relevance([Step(one), Step(two)]), expected, atol=1e-12)


def test_pooling_passes_on_what_it_looks_at():
    before, pool = torch.rand(3, 3), torch.rand(1, 3)
    found = relevance([Step(before), Step(pool, residual=False)])
    assert torch.allclose(found, pool @ (torch.eye(3) + before))


def test_without_a_layer_it_says_so():
    with pytest.raises(UserError, match="at least one layer"):
        relevance([])


def test_without_a_cross_layer_two_sides_are_as_one_each():
    seen, other = torch.rand(3, 3), torch.rand(2, 2)
    both = Both.begin(3, 2).after_self(seen).turned().after_self(other).turned()
    assert torch.allclose(both.ss, relevance([Step(seen)]))
    assert torch.allclose(both.qq, relevance([Step(other)]))
    assert not both.sq.any()
    assert not both.qs.any()


def test_a_cross_layer_right_at_the_beginning_divides_nothing_by_nothing():
    saw = torch.rand(3, 2)
    both = Both.begin(3, 2).after_cross(saw)
    assert torch.allclose(both.sq, saw)
    assert torch.equal(both.ss, torch.eye(3))


def test_what_both_sides_add_in_one_layer_is_of_the_matrices_before_it():
    inside = Both.begin(3, 2).after_self(torch.rand(3, 3)).turned().after_self(torch.rand(2, 2)).turned()
    start = inside.after_cross(torch.rand(3, 2), torch.rand(2, 3))
    s_saw, q_saw = torch.rand(3, 2), torch.rand(2, 3)
    both = start.after_cross(s_saw, q_saw)

    def rows(joined):
        others = joined - torch.eye(len(joined))
        return others / others.sum(1, keepdim=True) + torch.eye(len(joined))

    ss, qq = rows(start.ss), rows(start.qq)
    assert torch.allclose(both.sq, start.sq + ss.T @ s_saw @ qq, atol=1e-6)
    assert torch.allclose(both.qs, start.qs + qq.T @ q_saw @ ss, atol=1e-6)
    assert torch.allclose(both.ss, start.ss + s_saw @ start.qs, atol=1e-6)
    assert torch.allclose(both.qq, start.qq + q_saw @ start.sq, atol=1e-6)
