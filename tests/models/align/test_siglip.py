import math

import pytest
import torch

from diptych.core.batch import Batch
from tests.models.align.fixture import IMAGE, TEXT, compared, make


def by_hand(*, scale, bias, right):
    logits = scale * IMAGE @ TEXT.T + bias
    return -torch.nn.functional.logsigmoid(torch.where(right, logits, -logits)).sum().item() / 3


def test_scale_and_bias_begin_as_in_the_paper():
    model = make("siglip")
    assert model.scale().item() == pytest.approx(10, rel=1e-6)
    assert model.bias.item() == -10


def test_the_loss_is_that_of_the_paper():
    right = torch.eye(3, dtype=torch.bool)
    assert compared("siglip", bias=-1.0) == pytest.approx(by_hand(scale=2.0, bias=-1.0, right=right), abs=1e-10)
    assert compared("siglip", scale=1e-12, bias=0.0) == pytest.approx(3 * math.log(2), abs=1e-10)


def test_two_captions_of_one_picture_are_both_right():
    pair_id = torch.tensor([5, 5, 7])
    wanted = by_hand(scale=2.0, bias=-1.0, right=pair_id[:, None] == pair_id)
    assert compared("siglip", bias=-1.0, batch=Batch(pair_id=pair_id)) == pytest.approx(wanted, abs=1e-10)
