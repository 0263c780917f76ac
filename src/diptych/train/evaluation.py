"""Scores of a model on a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.tasks.task import Batches, Evaluator
from diptych.train import rng

SEED = 1234


@dataclass(frozen=True, slots=True)
class OnDevice:
    """The batches of a split on a device; each evaluator can go through them anew."""

    batches: Batches
    device: torch.device

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches.epoch(0):
            yield batch.to(self.device)


def evaluate(model: Model, batches: Batches, evaluators: Sequence[Evaluator], device: torch.device) -> dict[str, float]:
    """Score a model, without gradient, dropout or any effect on the random numbers of what comes after.

    It computes in float32 whatever the training does, so that close scores do not become ties and another program
    finds the same numbers. With several processes each one scores the whole split: none can wait for another that
    has left.

    Args:
        model: on its device, whole.
        batches: of a split.
        evaluators: each gives some scores.
        device: of the model.

    Returns:
        All scores by name.

    Raises:
        UserError: when two evaluators give a score of the same name.
    """
    scores: dict[str, float] = {}
    training = model.training
    model.eval()
    try:
        with rng.aside(SEED, device), torch.no_grad():
            for evaluator in evaluators:
                found = evaluator(model, OnDevice(batches, device))
                twice = found.keys() & scores.keys()
                if twice:
                    raise UserError(f"two evaluators give the score {min(twice)!r}; give one of them another name")
                scores.update(found)
    finally:
        model.train(training)
    return scores
