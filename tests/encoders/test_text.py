"""The built-in text tower: equal to transformers' CLIP at equal weights, blind to padding and to what comes after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diptych.core.errors import UserError
from diptych.encoders.text import TextTransformer
from tests.encoders.test_image import copy_layer, shake

LENGTHS = torch.tensor([[7], [4], [2]])


@pytest.fixture
def texts() -> tuple[Tensor, Tensor]:
    mask = torch.arange(7) < LENGTHS
    tokens = torch.where(mask, torch.randint(3, 39, (3, 7)), 0)
    return tokens.scatter(1, LENGTHS - 1, 39), mask  # as in CLIP, the highest id ends a text


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_it_equals_transformers_clip(activation: str, texts: tuple[Tensor, Tensor]):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=40, hidden_size=24, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
        max_position_embeddings=9, hidden_act=activation, eos_token_id=39, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    theirs = CLIPTextModel(config).eval()
    shake(theirs)
    ours = TextTransformer(vocabulary=40, context=9, dim=24, layers=3, heads=3, activation=activation).eval()
    ours.embedding.load_state_dict(theirs.embeddings.token_embedding.state_dict())
    with torch.no_grad():
        ours.positions.copy_(theirs.embeddings.position_embedding.weight)
    ours.norm.load_state_dict(theirs.final_layer_norm.state_dict())
    for mine, other in zip(ours.transformer.blocks, theirs.encoder.layers, strict=True):
        copy_layer(mine, other)
    tokens, mask = texts
    out = theirs(tokens, attention_mask=mask.long())
    states = ours(tokens, mask)
    torch.testing.assert_close(states.summary, out.pooler_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(states.tokens[mask], out.last_hidden_state[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_padding_and_what_stands_in_it_change_nothing(pool: str, texts: tuple[Tensor, Tensor]):
    tower = TextTransformer(vocabulary=40, context=9, dim=16, layers=2, heads=2, pool=pool).eval()
    tokens, mask = texts
    summary = tower(tokens, mask).summary
    other = torch.where(mask, tokens, 39)
    torch.testing.assert_close(tower(other, mask).summary, summary, atol=1e-6, rtol=0)
    for row, length in enumerate(LENGTHS.flatten().tolist()):
        alone = tower(tokens[row : row + 1, :length], mask[row : row + 1, :length]).summary
        torch.testing.assert_close(alone, summary[row : row + 1], atol=1e-6, rtol=0)


def test_the_end_need_not_be_the_highest_id(texts: tuple[Tensor, Tensor]):
    tower = TextTransformer(vocabulary=40, context=9, dim=16, layers=2, heads=2).eval()
    tokens, mask = texts
    tokens = tokens.scatter(1, LENGTHS - 1, 2)
    states = tower(tokens, mask)
    assert torch.equal(states.summary, states.tokens[torch.arange(3), LENGTHS.flatten() - 1])


def test_causal_or_not(texts: tuple[Tensor, Tensor]):
    tokens, mask = texts
    other = tokens.clone()
    other[0, 5] = 7 if other[0, 5] != 7 else 8
    for pool, looks_ahead in (("last", False), ("mean", True)):
        tower = TextTransformer(vocabulary=40, context=9, dim=16, layers=2, heads=2, pool=pool).eval()
        same = torch.allclose(tower(tokens, mask).tokens[0, :5], tower(other, mask).tokens[0, :5], atol=1e-6)
        assert same is not looks_ahead


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_an_empty_text_is_zero_and_every_parameter_learns(pool: str, texts: tuple[Tensor, Tensor]):
    tower = TextTransformer(vocabulary=40, context=9, dim=16, layers=2, heads=2, pool=pool)
    tokens, mask = texts
    mask = mask & torch.tensor([[True], [True], [False]])
    states = tower(tokens, mask)
    assert (states.summary[2] == 0).all()
    states.summary.square().sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in tower.parameters())


def test_mistakes():
    tower = TextTransformer(vocabulary=40, context=5, dim=16, layers=1, heads=2)
    with pytest.raises(UserError, match="reads 5 tokens, got 6: tokenize with that context"):
        tower(torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.bool))
    with pytest.raises(UserError, match="unknown text pool 'class'"):
        TextTransformer(vocabulary=40, pool="class")
