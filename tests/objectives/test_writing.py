"""The losses of writing, by hand in float64."""

import math

import pytest
import torch

from diptych.objectives.next_word import next_word
from diptych.objectives.self_critical import self_critical


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_next_word_is_its_formula(smoothing):
    logits, target = torch.randn(7, 5).double() * 3, torch.randint(5, (7,))
    wanted = plain = 0.0
    for row, right in zip(logits.float().double(), target, strict=True):
        logs = [float(value) - math.log(sum(math.exp(float(other)) for other in row)) for value in row]
        plain -= logs[right]
        wanted -= (1 - smoothing) * logs[right] + smoothing * sum(logs) / 5
    total, word = next_word(logits, target, texts=3, smoothing=smoothing)
    assert total.item() == pytest.approx(wanted / 3, rel=1e-6)  # the loss is taken in float32
    assert word.item() == pytest.approx(plain / 7, rel=1e-6)
    assert not word.requires_grad


def test_even_logits_cost_the_logarithm_of_the_vocabulary():
    total, word = next_word(torch.zeros(6, 10), torch.randint(10, (6,)), texts=2, smoothing=0.3)
    assert total.item() == pytest.approx(3 * math.log(10))
    assert word.item() == pytest.approx(math.log(10))


def test_no_text_costs_nothing():
    total, word = next_word(torch.zeros(0, 10), torch.zeros(0).long(), texts=0)
    assert total.item() == word.item() == 0


def test_self_critical_is_its_formula():
    log_prob = -torch.rand(4, 5, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [2], [0], [3]])
    reward, baseline = torch.rand(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    wanted = 0.0
    for row in range(4):
        length = int(mask[row].sum())
        wanted -= float(reward[row] - baseline[row]) * sum(float(log_prob[row, t]) for t in range(length)) / 4
    assert self_critical(log_prob, mask, reward, baseline).item() == pytest.approx(wanted, abs=1e-12)


def test_equal_rewards_have_no_gradient_and_padding_none_either():
    log_prob = torch.full((3, 4), -1.0, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    self_critical(log_prob, mask, torch.full((3,), 2.0), torch.full((3,), 2.0)).backward()
    assert log_prob.grad.abs().max() == 0
    log_prob.grad = None
    self_critical(torch.where(mask, log_prob, torch.nan), mask, torch.arange(3.0), torch.ones(3)).backward()
    assert (log_prob.grad[~mask] == 0).all()
    assert (log_prob.grad[0, :2] > 0).all(), "what earned less becomes less likely"
    assert (log_prob.grad[2, :1] < 0).all()
