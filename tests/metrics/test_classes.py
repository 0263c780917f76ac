from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from diptych.core.errors import UserError
from diptych.metrics.classes import accuracy, confusion
from diptych.metrics.zero_shot import zero_shot_weights


def test_accuracy_by_hand():
    scores = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [1, 2, 3]])
    found = accuracy(scores, torch.tensor([0, 1, 2, 2]), ks=(1, 2, 5))
    assert found == {"top1": 0.5, "top2": 0.75, "top5": 1.0, "mean_per_class": pytest.approx((1 + 0 + 0.5) / 3)}


def test_classes_that_do_not_occur_do_not_count():
    found = accuracy(torch.eye(4)[:2], torch.tensor([0, 1]))
    assert found == {"top1": 1.0, "top5": 1.0, "mean_per_class": 1.0}


def test_constant_scores_are_never_right():
    found = accuracy(torch.ones(6, 10), torch.zeros(6).long(), ks=(1, 5, 10))
    assert found == {"top1": 0.0, "top5": 0.0, "top10": 1.0, "mean_per_class": 0.0}


def test_confusion_by_hand():
    found = confusion(torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 0, 1, 2, 2]), classes=3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("scores", "label", "line"),
    [
        (torch.ones(1, 3), torch.tensor([3]), "class 3 is not one of the 3 classes"),
        (torch.ones(1, 3), torch.tensor([-1]), "class -1 is not one of the 3"),
        (torch.ones(0, 3), torch.tensor([]).long(), "no examples"),
        (torch.ones(1, 3) / 0, torch.tensor([0]), "NaN or infinite"),
    ],
)
def test_bad_input_is_told(scores, label, line):
    with pytest.raises(UserError, match=line):
        accuracy(scores, label)


def test_one_prompt_is_plain_zero_shot():
    prompts = torch.randn(4, 1, 8)
    torch.testing.assert_close(zero_shot_weights(prompts), normalize(prompts[:, 0], dim=-1))


def test_ensemble_is_made_of_unit_vectors():
    prompts = torch.tensor([[[10.0, 0], [0, 1.0]]])  # the long vector must not outweigh the short one
    torch.testing.assert_close(zero_shot_weights(prompts), torch.tensor([[0.5**0.5, 0.5**0.5]]))
    prompts = torch.randn(5, 7, 16)
    weights = zero_shot_weights(prompts)
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(zero_shot_weights(torch.cat([prompts, prompts], 1)), weights)
    order = torch.randperm(5)
    torch.testing.assert_close(zero_shot_weights(prompts[order]), weights[order])
