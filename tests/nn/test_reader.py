"""The reader of a tower's states: what it computes, and what it must not see."""

from __future__ import annotations

import pytest
import torch

from diptych.core.batch import States
from diptych.nn.reader import Reader

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()


@pytest.fixture
def states() -> States:
    return States(torch.randn(3, 4, 5), MASK, torch.randn(3, 6))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_it_adds_what_the_queries_take_to_the_head(states: States, head: str):
    reader = Reader(6, 8, cells=5, queries=2, head=head, hidden=7).double().eval()
    states = states.map(lambda value: value.double() if value.is_floating_point() else value)
    taken = []
    for row in range(3):
        real = states.tokens[row, MASK[row]]
        weights = (real @ reader.pool.score.weight.T + reader.pool.score.bias).softmax(0)
        taken.append((weights.T @ real).flatten())
    expected = reader.head(states.summary) + reader.cells[1](torch.stack(taken))
    # Scores go through float32 on purpose, and so does the result.
    torch.testing.assert_close(reader(states).double(), expected, atol=1e-5, rtol=1e-5)
    alone = Reader(6, 8, head=head, hidden=7).double().eval()
    assert torch.equal(alone(states), alone.head(states.summary).float())


@pytest.mark.parametrize("standardise", [False, True])
def test_padding_changes_nothing_and_everything_learns(states: States, standardise: bool):
    reader = Reader(6, 8, cells=5, standardise=standardise, dropout=0.1, cell_dropout=0.3)
    reader.look(states)
    reader.settle()
    reader(states).square().sum().backward()
    assert [name for name, value in reader.named_parameters() if value.grad is None] == []
    reader.eval()
    other = States(states.tokens.masked_fill(~MASK[..., None], 1e4), MASK, states.summary)
    torch.testing.assert_close(reader(other), reader(states), atol=0, rtol=0)
    short = States(states.tokens[1:2, :2], MASK[1:2, :2], states.summary[1:2])
    torch.testing.assert_close(reader(short), reader(states)[1:2], atol=1e-5, rtol=0)


def test_dropped_cells_never_leave_a_picture_blind(states: States):
    reader = Reader(6, 8, cells=5, cell_dropout=0.999).train()
    pooled = reader.pool(states.tokens, MASK)
    assert (pooled[:2] != 0).any(1).all()
    assert (pooled[2] == 0).all()
