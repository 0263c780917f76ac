import random

import numpy as np
import torch

from diptych.core.runtime import seed_everything
from diptych.train import rng

CPU = torch.device("cpu")


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), np.random.randn(), random.gauss(0, 1)


def test_every_generator_goes_on_from_where_it_was_taken_down():
    seed_everything(3)
    draw()  # a gaussian is drawn in pairs: the second one waits inside NumPy's and Python's generators
    state = rng.capture(CPU)
    first = draw()
    draw()
    rng.restore(state, CPU)
    assert draw() == first


def test_what_is_done_aside_changes_nothing_and_is_always_the_same():
    seed_everything(3)
    state = rng.capture(CPU)
    with rng.aside(1, CPU):
        one = draw()
    after = draw()
    rng.restore(state, CPU)
    assert draw() == after
    with rng.aside(1, CPU):
        assert draw() == one
