import math

import pytest
import torch

from diptych.objectives.contrastive import contrastive
from diptych.objectives.matching import score_contrastive
from diptych.objectives.triplet import score_triplet, triplet

GROUP = torch.tensor([0, 0, 1, 2, 2, 2, 3])


@pytest.mark.parametrize("group", [None, GROUP])
def test_products_of_vectors_give_what_the_losses_of_vectors_give(group):
    image, text = (torch.nn.functional.normalize(torch.randn(7, 4).double(), dim=1) for _ in range(2))
    scores = image @ text.T
    same = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(
        score_contrastive(5 * scores, group=group), contrastive(image, text, 5.0, group=group), **same
    )
    for hardest in (0.0, 0.4, 1.0):
        torch.testing.assert_close(
            score_triplet(scores, hardest=hardest, group=group),
            triplet(image, text, hardest=hardest, group=group),
            **same,
        )


def test_equal_scores_cost_the_logarithm_of_their_number_and_large_ones_stay_finite():
    assert score_contrastive(torch.full((6, 6), 3.0)).item() == pytest.approx(math.log(6), abs=1e-6)
    assert score_contrastive(1e4 * torch.eye(3)).item() == pytest.approx(0, abs=1e-6)
