"""The judge of a system that offers nothing to be scored by: its own loss on pairs it did not learn from."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diptych.core.batch import Batch
from diptych.core.model import Model, Watchful

MONITOR = "-loss"


@torch.no_grad()
def held_out(model: Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the mean over examples of the loss of each batch, and its negative, of which more is better.

    Of a model that watches parts of its loss, these too.
    """
    names = model.watched if isinstance(model, Watchful) else ()
    totals, rows = dict.fromkeys(("loss", *names), 0.0), 0
    device = next(model.parameters()).device
    for batch in batches:
        loss = model.loss(batch.to(device))
        for name, value in {"loss": loss.total, **{name: loss.parts[name] for name in names}}.items():
            totals[name] += len(batch) * value.item()
        rows += len(batch)
    means = {name: total / rows if rows > 0 else float("nan") for name, total in totals.items()}
    return {"loss": means["loss"], MONITOR: -means["loss"], **{name: means[name] for name in names}}
