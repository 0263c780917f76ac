import math

import pytest
import torch

from diptych.metrics.infomax import infomax


def test_sure_and_even_guesses_have_all_and_equal_guesses_nothing():
    assert infomax(1e3 * torch.eye(4)) == pytest.approx(1, abs=1e-12)
    assert infomax(torch.zeros(5, 4)) == pytest.approx(0, abs=1e-12)
    assert infomax(torch.tensor([[50.0, 0, 0]]).expand(6, 3)) == pytest.approx(0, abs=1e-9)


def test_it_is_the_entropy_of_the_mean_less_the_mean_entropy():
    chances = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]
    mean = [0.4, 0.15, 0.45]

    def entropy(p):
        return -sum(x * math.log(x) for x in p)

    wanted = (entropy(mean) - (entropy(chances[0]) + entropy(chances[1])) / 2) / math.log(3)
    assert infomax(torch.tensor(chances, dtype=torch.float64).log() + 3) == pytest.approx(wanted, abs=1e-10)
