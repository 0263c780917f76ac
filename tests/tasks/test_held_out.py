import math

import pytest
import torch
from torch import nn

from diptych.core.batch import Batch
from diptych.core.model import Loss, Model
from diptych.tasks.held_out import held_out


class Mean(Model):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        return Loss((batch.need("label").float() - self.shift).mean())


def test_every_example_weighs_the_same():
    batches = [Batch(label=torch.tensor([1, 2, 3])), Batch(label=torch.tensor([10]))]
    assert held_out(Mean(), batches) == {"loss": pytest.approx(4), "-loss": pytest.approx(-4)}
    assert math.isnan(held_out(Mean(), [])["-loss"])
