"""Losses of answers against their formulas in float64."""

import torch

from diptych.objectives.answers import one_answer, share_right, soft_answers


def logits():
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_answer_is_cross_entropy_over_the_known():
    x, answer = logits(), torch.tensor([2, -1, 0, 4])
    p = x.exp() / x.exp().sum(1, keepdim=True)
    wanted = -(p[0, 2].log() + p[2, 0].log() + p[3, 4].log()) / 3
    torch.testing.assert_close(one_answer(x, answer), wanted, rtol=1e-10, atol=1e-10)
    assert one_answer(x, torch.full((4,), -1)) == 0


def test_soft_answers_sum_over_answers():
    x, scores = logits(), torch.rand(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    s = 1 / (1 + (-x).exp())
    wanted = -(scores * s.log() + (1 - scores) * (1 - s).log()).sum() / 4
    torch.testing.assert_close(soft_answers(x, scores), wanted, rtol=1e-10, atol=1e-10)
    best = torch.logit(scores)  # the loss is least where the sigmoids are the scores
    assert soft_answers(best, scores) < soft_answers(best + 0.1, scores)


def test_the_share_of_right_answers():
    assert share_right(torch.eye(4), torch.tensor([0, 1, 3, -1])) == 0.5
