"""The judge of a system that offers nothing to be scored by: its own loss on pairs it did not learn from."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diptych.core.batch import Batch
from diptych.core.model import Model

MONITOR = "-loss"


@torch.no_grad()
def held_out(model: Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the mean over examples of the loss of each batch, and its negative, of which more is better."""
    total, rows = 0.0, 0
    device = next(model.parameters()).device
    for batch in batches:
        total += len(batch) * model.loss(batch.to(device)).total.item()
        rows += len(batch)
    mean = total / rows if rows > 0 else float("nan")
    return {"loss": mean, MONITOR: -mean}
