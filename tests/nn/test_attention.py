"""Attention against its formula in float64, and what masks must do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diptych.core.errors import UserError
from diptych.nn.attention import Attention, attend, visible


def by_hand(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, one query at a time; zero for a query that sees nothing."""
    out = torch.zeros(*query.shape[:3], value.shape[-1], dtype=torch.float64)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for q in range(query.shape[2]):
                keys = [k for k in range(key.shape[2]) if seen[b, q, k]]
                scores = [float(query[b, h, q] @ key[b, h, k]) / math.sqrt(query.shape[-1]) for k in keys]
                total = sum(math.exp(s) for s in scores)
                for s, k in zip(scores, keys, strict=True):
                    out[b, h, q] += math.exp(s) / total * value[b, h, k]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attend_is_its_formula(causal: bool, masked: bool):
    query, key, value = (torch.randn(3, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool() if masked else None
    seen = torch.ones(3, 5, 5, dtype=torch.bool) if mask is None else mask[:, None].expand(3, 5, 5)
    seen = seen.tril() if causal else seen
    got = attend(query, key, value, seen=visible(mask, causal=causal, queries=5), causal=causal)
    torch.testing.assert_close(got, by_hand(query, key, value, seen), atol=1e-10, rtol=0)
    if masked:
        assert (got[2] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_sees_nothing_is_zero_and_has_no_bad_gradient(dtype: torch.dtype):
    attention = Attention(8, 2, causal=True).to(dtype)
    torch.nn.init.ones_(attention.out.bias)
    mask = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 1, 1]]).bool()
    x = torch.randn(3, 3, 8, dtype=dtype, requires_grad=True)
    out = attention(x, mask=mask)
    assert (out[0] == 0).all()
    assert (out[1, 0] == 0).all(), "the first query sees only itself, which is not real"
    assert (out[2] != 0).all()
    out.float().square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad[0] == 0).all()


def test_padding_changes_nothing():
    attention = Attention(8, 2)
    x = torch.randn(2, 6, 8)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2).bool()
    got = attention(x, mask=mask)[:, :4]
    torch.testing.assert_close(got, attention(x[:, :4]), atol=1e-6, rtol=0)
    other = torch.where(mask[..., None], x, torch.full_like(x, 1e4))
    torch.testing.assert_close(attention(other, mask=mask)[:, :4], got, atol=0, rtol=0)


def test_looking_at_another_sequence():
    attention = Attention(8, 2, context=5)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 7, 5)
    out = attention(x, context, torch.tensor([[True] * 7, [False] * 7]))
    assert out.shape == (2, 3, 8)
    assert (out[1] == 0).all()
    order = torch.randperm(7)
    torch.testing.assert_close(attention(x, context[:, order]), attention(x, context), atol=1e-6, rtol=0)


def test_bf16_training_on_a_cpu_mixes_in_float32():
    query, key, value = (torch.randn(2, 2, 5, 4).bfloat16().requires_grad_() for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = attend(query, key, value)
    assert got.dtype == torch.bfloat16
    rounded = (part.detach().double() for part in (query, key, value))
    exact = by_hand(*rounded, torch.ones(2, 5, 5).bool())
    # One rounding to 8 bits at the end: half a unit in the last place is 2^-9 of the value.
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=1e-6)


def test_weights_are_drawn_as_in_clip():
    attention = Attention(256, 4)
    attention.reset(out_scale=0.5)
    assert attention.query.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert attention.out.weight.std().item() == pytest.approx(0.5 * 256**-0.5, rel=0.02)


def test_heads_must_divide_the_width():
    with pytest.raises(UserError, match="multiple of the heads, got dim=10 and heads=4"):
        Attention(10, 4)
