import numpy as np
import pytest
import torch

from diptych.core.errors import UserError
from diptych.fewshot.shots import choose, draw, judge

LABEL = np.repeat(np.arange(4), [40, 20, 3, 1])


def counts(places):
    return np.bincount(LABEL[places], minlength=4).tolist()


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_validation_is_drawn_beside_the_shots_and_never_among_them(shots):
    found = draw(LABEL, shots=shots, seed=3)
    assert not set(found.train) & set(found.valid)
    assert counts(found.train)[:2] == [shots, min(shots, 20 - min(shots, 4))]
    assert counts(found.valid)[:2] == [min(shots, 4)] * 2


def test_a_class_with_too_few_uses_what_there_is_and_is_counted():
    found = draw(LABEL, shots=16, seed=0)
    assert counts(found.train) == [16, 16, 2, 1]
    assert counts(found.valid) == [4, 4, 1, 0]
    assert found.short == 2
    assert draw(np.zeros(16, dtype=np.int64), shots=16, seed=0).train.shape == (12,)


def test_the_draw_is_a_function_of_the_seed_and_nested_in_the_shots():
    again, other = draw(LABEL, shots=4, seed=1), draw(LABEL, shots=4, seed=2)
    np.testing.assert_array_equal(again.train, draw(LABEL, shots=4, seed=1).train)
    assert again.train.tolist() != other.train.tolist()
    assert set(again.train) <= set(draw(LABEL, shots=8, seed=1).train)


def test_nothing_to_draw_from_is_told():
    with pytest.raises(UserError, match="nothing to draw"):
        draw(LABEL[:0], shots=1, seed=0)
    with pytest.raises(UserError, match="shots=0"):
        draw(LABEL, shots=0, seed=0)


def test_choose_prefers_accuracy_then_certainty_then_the_first():
    label = torch.tensor([0, 1])
    unsure, sure, wrong = torch.eye(2), 3 * torch.eye(2), torch.eye(2).flip(0)
    assert choose([("wrong", wrong), ("unsure", unsure), ("sure", sure)], label, usual="") == "sure"
    assert choose([("first", sure), ("second", sure)], label, usual="") == "first"
    assert choose([("a", sure[:0])], label[:0], usual="usual") == "usual"
    assert judge(sure, label)[0] == 1.0
