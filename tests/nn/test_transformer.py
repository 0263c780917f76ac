"""The transformer's order of operations, its sizes at the start and its names of activations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.nn.transformer import Block, Transformer, activation_named, quick_gelu


def test_quick_gelu_is_its_formula():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    torch.testing.assert_close(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)), atol=1e-12, rtol=0)
    assert not torch.allclose(quick_gelu(x), F.gelu(x), atol=1e-3), "they are different functions"


def test_unknown_activation():
    with pytest.raises(UserError, match="unknown activation 'quickgelu'; did you mean 'quick_gelu'"):
        activation_named("quickgelu")


def test_a_block_adds_to_what_came_in_after_a_norm():
    block = Block(8, 2).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    y = x + block.attention(F.layer_norm(x, (8,)))
    expected = y + block.mlp.down(F.gelu(block.mlp.up(F.layer_norm(y, (8,)))))
    torch.testing.assert_close(block(x), expected, atol=1e-12, rtol=0)


def test_causal_stack_looks_only_back():
    stack = Transformer(16, 2, 3, causal=True)
    x = torch.randn(2, 6, 16)
    other = x.clone()
    other[:, 4:] = torch.randn(2, 2, 16)
    torch.testing.assert_close(stack(x)[:, :4], stack(other)[:, :4], atol=1e-6, rtol=0)
    assert not torch.allclose(stack(x)[:, 4:], stack(other)[:, 4:])


def test_a_fully_masked_row_stays_finite():
    stack = Transformer(16, 2, 2)
    x = torch.randn(2, 4, 16)
    assert torch.isfinite(stack(x, torch.tensor([[True] * 4, [False] * 4]))).all()


def test_a_deeper_stack_starts_with_smaller_steps():
    layers = 8
    stack = Transformer(128, 2, layers)
    expected = 128**-0.5 * (2 * layers) ** -0.5
    for block in stack.blocks:
        assert block.attention.out.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert block.mlp.down.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert block.mlp.up.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)


def test_dropout_only_in_training():
    stack = Transformer(16, 2, 2, dropout=0.5)
    x = torch.randn(2, 4, 16)
    assert not torch.equal(stack(x), stack(x))
    stack.eval()
    assert torch.equal(stack(x), stack(x))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "relu"])
def test_every_parameter_gets_a_gradient(activation: str):
    stack = Transformer(16, 2, 2, activation=activation, hidden=24)
    stack(torch.randn(2, 4, 16)).square().sum().backward()
    # A softmax does not see what is added to all its inputs, so the bias of the keys has a gradient of rounding only.
    assert all(parameter.grad is not None for parameter in stack.parameters())
