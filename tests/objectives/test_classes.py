"""Naming the class: the mean over labelled rows, and nothing for the others."""

import torch
from torch.nn.functional import cross_entropy

from diptych.objectives.classes import name_classes


def test_rows_without_a_class_count_for_nothing():
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([2, -1, 0, 1, -1])
    real = label >= 0
    torch.testing.assert_close(name_classes(logits, label), cross_entropy(logits[real], label[real]))
    whole = torch.tensor([2, 1, 0, 1, 0])
    torch.testing.assert_close(name_classes(logits, whole), cross_entropy(logits, whole))
    none = name_classes(logits, torch.full((5,), -1))
    assert none.item() == 0
    none.backward()
    assert logits.grad.abs().max() == 0
