import torch
from torch.nn.functional import normalize

from diptych.core.batch import Batch
from diptych.core.model import Loss, Model
from diptych.fewshot.shots import Shots


class Lonely(Model):
    """A model that puts nothing into a joint space."""

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        return Loss(torch.zeros(()))


def made(*, classes=3, shots=4, dim=8, noise=0.4, seed=0, dtype=torch.float64, valid=3):
    """Make shots of classes that lie around directions of their own; names point near them."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*size):
        return torch.randn(*size, generator=generator, dtype=dtype)

    centres = normalize(drawn(classes, dim), dim=1)

    def around(each):
        label = torch.arange(classes).repeat_interleave(each)
        return normalize(centres[label] + noise * drawn(len(label), dim), dim=1), label

    text = normalize(centres + 0.25 * drawn(classes, dim), dim=1)
    return Shots(*around(shots), *around(valid), text=text, scale=20.0), around(50)
