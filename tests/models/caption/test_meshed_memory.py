"""What makes a Meshed-Memory Transformer: slots beside the cells, and gates to every level."""

import math

import pytest
import torch
from torch import nn

from diptych.models import load
from diptych.models.caption.meshed_memory import MemoryAttention, MemoryLayer, MeshedLayer
from diptych.nn.attention import Attention
from tests.models.systems import SMALL_CNN, SPEC, make_batch

DIM, HEADS = 8, 2


def copied(ours: MemoryAttention) -> Attention:
    plain = Attention(DIM, HEADS).double()
    for name in ("query", "key", "value", "out"):
        getattr(plain, name).load_state_dict(getattr(ours, name).state_dict())
    return plain


def by_hand(attention: MemoryAttention, x: torch.Tensor) -> torch.Tensor:
    """[K; sqrt(d) M_k], [V; sqrt(m) M_v], head by head (Cornia et al. 2019, equation 3, and their code)."""
    width, slots = DIM // HEADS, attention.slots
    key = torch.cat([attention.key(x), math.sqrt(width) * attention.memory_key])
    value = torch.cat([attention.value(x), math.sqrt(slots) * attention.memory_value])
    query, rows = attention.query(x), []
    for cell in range(len(x)):
        heads = []
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            weights = torch.stack([query[cell, part] @ k[part] / math.sqrt(width) for k in key]).softmax(0)
            heads.append(sum(w * v[part] for w, v in zip(weights, value, strict=True)))
        rows.append(torch.cat(heads))
    return attention.out(torch.stack(rows))


def test_attention_with_memory_is_its_formula():
    attention, x = MemoryAttention(DIM, HEADS, slots=3).double(), torch.randn(2, 5, DIM).double()
    for row, found in zip(x, attention(x), strict=True):
        torch.testing.assert_close(found, by_hand(attention, row), rtol=0, atol=1e-10)


def test_without_slots_it_is_plain_attention():
    ours, x = MemoryAttention(DIM, HEADS, slots=0).double(), torch.randn(2, 5, DIM).double()
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    assert (ours(x) - copied(ours)(x)).abs().max() == 0
    torch.testing.assert_close(ours(x, mask)[1], copied(ours)(x, mask=mask)[1], rtol=0, atol=1e-12)
    assert not any(name.startswith("memory") for name, _ in ours.named_parameters())


@pytest.mark.parametrize("slots", [0, 1, 7])
def test_cells_in_another_order_give_the_same_in_that_order(slots):
    layer, x = MemoryLayer(DIM, HEADS, hidden=16, slots=slots).eval(), torch.randn(2, 6, DIM)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


@pytest.mark.parametrize("slots", [0, 4])
def test_padded_cells_change_nothing(slots):
    layer, x = MemoryLayer(DIM, HEADS, hidden=16, slots=slots).eval(), torch.randn(2, 6, DIM)
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    one, two = layer(x, mask), layer(torch.where(mask[..., None], x, 1e3), mask)
    torch.testing.assert_close(one[mask], two[mask])
    torch.testing.assert_close(one[0, :4], layer(x[:1, :4])[0])


def test_the_memory_learns_and_begins_with_unit_variance_as_used():
    attention = MemoryAttention(64, 4, slots=500)
    assert attention.memory_key.std().item() == pytest.approx(16**-0.5, rel=0.05)
    assert attention.memory_value.std().item() == pytest.approx(500**-0.5, rel=0.05)
    attention(torch.randn(2, 3, 64)).square().sum().backward()
    assert attention.memory_key.grad.abs().max() > 0
    assert attention.memory_value.grad.abs().max() > 0


def test_a_meshed_layer_is_its_formula():
    layer = MeshedLayer(DIM, HEADS, levels=3, hidden=16).double().eval()
    nn.init.normal_(layer.gate_words.bias)
    x, levels = torch.randn(2, 4, DIM).double(), [torch.randn(2, 5, DIM).double() for _ in range(3)]
    y = layer.back_norm(x + layer.back(x))
    mesh = torch.zeros_like(y)
    for level, memory in enumerate(levels):
        found = layer.look_norm(y + layer.cross(y, layer.cross.look([memory]))[0])
        rows = slice(level * DIM, (level + 1) * DIM)
        weight = torch.cat([layer.gate_words.weight[rows], layer.gate_found[level].T], dim=1)
        gate = torch.sigmoid(torch.cat([y, found], dim=2) @ weight.T + layer.gate_words.bias[rows])
        mesh = mesh + gate * found
    mesh = mesh / math.sqrt(3)
    wanted = layer.mlp_norm(mesh + layer.mlp(mesh))
    torch.testing.assert_close(layer(x, layer.look(levels)), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_one_open_gate_is_attention_to_that_level_alone(opened):
    layer = MeshedLayer(DIM, HEADS, levels=3, hidden=16).double().eval()
    with torch.no_grad():
        for weight in (layer.gate_words.weight, layer.gate_found, layer.mlp.down.weight):
            weight.zero_()
        layer.gate_words.bias.fill_(-50.0)
        layer.gate_words.bias[opened * DIM : (opened + 1) * DIM] = 50.0
    x, levels = torch.randn(2, 4, DIM).double(), [torch.randn(2, 5, DIM).double() for _ in range(3)]
    y = layer.back_norm(x + layer.back(x))
    alone = layer.look_norm(y + layer.cross(y, layer.cross.look([levels[opened]]))[0]) / math.sqrt(3)
    torch.testing.assert_close(layer(x, layer.look(levels)), layer.mlp_norm(alone), rtol=0, atol=1e-10)


def test_the_decoder_sees_as_many_levels_as_the_encoder_has():
    module = load("meshed_memory")
    for layers in (1, 3):
        config = module.Config.parse({**SMALL_CNN, "dim": 12, "text_context": 8, "encoder_layers": layers, "memory": 2})
        model = module.build(config, SPEC).eval()
        levels, mask = model.look(make_batch())
        assert len(levels) == layers
        assert mask is None
        assert all(len(layer.gate_found) == layers for layer in model.decoder.layers)
