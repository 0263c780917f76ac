"""LoRA: nothing changes at first, only the low rank learns, and merging keeps the outputs."""

from __future__ import annotations

import torch
from torch import nn

from diptych.nn.lora import LoRALinear, add_lora, merge_lora
from diptych.nn.transformer import Transformer


def test_it_starts_equal_and_is_its_formula_then():
    base = nn.Linear(6, 4).double()
    lora = LoRALinear(base, 2, alpha=8.0)
    x = torch.randn(3, 6, dtype=torch.float64)
    assert torch.equal(lora(x), base(x))
    nn.init.normal_(lora.up.weight)
    expected = x @ (base.weight + 8.0 / 2 * lora.up.weight @ lora.down.weight).T + base.bias
    torch.testing.assert_close(lora(x), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(lora.merged()(x), expected, atol=1e-12, rtol=0)


def test_only_the_low_rank_learns():
    lora = LoRALinear(nn.Linear(6, 4), 2)
    before = lora.base.weight.clone()
    optimizer = torch.optim.SGD(lora.parameters(), lr=1.0)
    for _ in range(2):  # after the first step B is no longer zero, so that A learns in the second
        optimizer.zero_grad()
        lora(torch.randn(3, 6)).square().sum().backward()
        optimizer.step()
    assert torch.equal(lora.base.weight, before)
    assert [name for name, value in lora.named_parameters() if value.requires_grad] == ["down.weight", "up.weight"]
    assert (lora.up.weight != 0).all()


def test_merging_a_whole_stack():
    stack = Transformer(16, 2, 2).eval()
    x = torch.randn(2, 3, 16)
    names = list(stack.state_dict())
    add_lora(stack, ["blocks.0.attention.query", "blocks.1.mlp.up"], 4)
    for name, value in stack.named_parameters():
        if name.endswith("up.weight") and value.shape[1] == 4:
            nn.init.normal_(value, std=0.1)
    tuned = stack(x)
    merge_lora(stack)
    assert list(stack.state_dict()) == names
    torch.testing.assert_close(stack(x), tuned, atol=1e-6, rtol=0)
