"""Heads: what each kind computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.nn.head import Head


def test_linear_head_has_one_matrix():
    head = Head(6, 4)
    x = torch.randn(3, 6)
    assert [tuple(parameter.shape) for parameter in head.parameters()] == [(4, 6)]
    torch.testing.assert_close(head(x), x @ head.straight.weight.T)


@pytest.mark.parametrize("residual", [False, True])
def test_mlp_head(residual: bool):
    head = Head(6, 4, kind="mlp", hidden=10, residual=residual).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    expected = head.down(F.gelu(head.up(F.layer_norm(x, (6,)))))
    if residual:
        expected = expected + x @ head.straight.weight.T
    torch.testing.assert_close(head(x), expected, atol=1e-12, rtol=0)
    head(x).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_dropout_only_in_training():
    head = Head(6, 4, kind="mlp", dropout=0.5)
    x = torch.randn(3, 6)
    assert not torch.equal(head(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


def test_no_head_changes_nothing():
    head, x = Head(6, 6, kind="none", dropout=0.5, residual=True), torch.randn(3, 6)
    assert head(x) is x
    assert not list(head.parameters())
    with pytest.raises(UserError, match="head none changes nothing, so it cannot bring 6 features to 4: give out=6"):
        Head(6, 4, kind="none")


def test_unknown_kind():
    with pytest.raises(UserError, match="unknown head 'liner'; did you mean 'linear'"):
        Head(6, 4, kind="liner")
