import pytest
import torch
import torch.nn.functional as F

from tests.models.align.fixture import IMAGE, TEXT, compared


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_it_is_cross_entropy_with_smoothed_labels_both_ways(smoothing):
    logits, right = 2 * IMAGE @ TEXT.T, torch.arange(3)
    wanted = sum(F.cross_entropy(way, right, label_smoothing=smoothing) for way in (logits, logits.T)) / 2
    assert compared("align", smoothing=smoothing) == pytest.approx(wanted.item(), abs=1e-10)


def test_without_smoothing_it_is_the_contrastive_loss():
    assert compared("align", smoothing=0.0) == pytest.approx(0.9315498879, abs=1e-9)
    assert compared("clip") == pytest.approx(0.9315498879, abs=1e-9)
