import math

import pytest
import torch
import torch.nn.functional as F

from diptych.objectives.rebuild import per_word, pixel_error, there_and_back, word_error


def test_pixels_by_hand():
    patches = torch.tensor([[[0.0, 2.0], [1.0, 1.0]], [[3.0, 3.0], [3.0, 3.0]]], dtype=torch.float64)
    painted = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[3.0, 3.0], [3.0, 3.0]]], dtype=torch.float64)
    assert pixel_error(painted, patches).tolist() == [(1 + 4) / 4, 0.0]


def test_words_by_hand_whatever_stands_in_the_padding():
    said = torch.tensor([[0.0, math.log(2), math.log(5)], [1.0, 1.0, 1.0]], dtype=torch.float64)
    tokens = torch.tensor([[2, 1, 1, 0], [0, 2, 1, 2]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    found = word_error(said, tokens, mask)
    torch.testing.assert_close(
        found,
        torch.tensor([-math.log(5 / 8) - 2 * math.log(2 / 8), math.log(3)], dtype=torch.float64),
        rtol=1e-10,
        atol=1e-10,
    )
    assert torch.equal(word_error(said, torch.where(mask, tokens, 1), mask), found)
    assert per_word(found, mask).item() == pytest.approx(found.sum().item() / 4)
    assert per_word(torch.zeros(2), torch.zeros(2, 3).bool()).item() == 0


def test_the_order_of_words_does_not_matter():
    said, tokens, mask = torch.randn(1, 9), torch.tensor([[4, 2, 8]]), torch.ones(1, 3).bool()
    torch.testing.assert_close(word_error(said, tokens, mask), word_error(said, tokens.flip(1), mask))
    torch.testing.assert_close(word_error(said, tokens, mask)[0], F.cross_entropy(said.expand(3, -1), tokens[0]) * 3)


def test_an_exact_inverse_comes_back_without_error():
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    start = torch.randn(4, 6, dtype=torch.float64)

    def error(x):
        return (x - start).square().sum(1)

    found = there_and_back(start, lambda x: x @ turn, lambda x: x @ turn.T, error)
    torch.testing.assert_close(found, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-24)
    assert (there_and_back(start, lambda x: x @ turn, lambda x: x @ turn, error) > 1e-3).all()
