import pytest
import torch

from diptych.core.errors import UserError
from diptych.explain.rollout import Step, rollout


def attention(n: int) -> torch.Tensor:
    return torch.rand(n, n, dtype=torch.float64).softmax(-1)


def test_two_uniform_layers_of_four_tokens():
    uniform = Step(torch.full((4, 4), 0.25, dtype=torch.float64))
    found = rollout([uniform, uniform])
    assert torch.allclose(found[0], torch.tensor([0.4375, 0.1875, 0.1875, 0.1875], dtype=torch.float64), atol=1e-12)


def test_rows_add_up_to_one():
    found = rollout([Step(attention(5)) for _ in range(3)])
    assert torch.allclose(found.sum(1), torch.ones(5, dtype=torch.float64), atol=1e-12)


def test_attention_to_oneself_alone_leaves_everything_in_its_place():
    assert torch.equal(rollout([Step(torch.eye(3)), Step(torch.eye(3))]), torch.eye(3))


def test_a_later_layer_stands_on_the_left():
    first, second = attention(4), attention(4)
    own = torch.eye(4, dtype=torch.float64)
    by_hand = ((second + own) / 2) @ ((first + own) / 2)
    assert torch.allclose(rollout([Step(first), Step(second)]), by_hand, atol=1e-12)
    assert not torch.allclose(rollout([Step(second), Step(first)]), by_hand, atol=1e-3)


def test_pooling_has_no_token_of_its_own_to_keep():
    pool = Step(torch.tensor([[0.5, 0.25, 0.25]]), residual=False)
    assert torch.equal(rollout([pool]), pool.weights)


def test_without_a_layer_it_says_so():
    with pytest.raises(UserError, match="at least one layer"):
        rollout([])
