"""Zero-shot classification of a source's rows, for the verb `evaluate`."""

from __future__ import annotations

import numpy as np
import torch
import typer
from jaxtyping import Int64

from diptych.core.errors import UserError, nearest
from diptych.data.source import Problem, Source
from diptych.metrics.classes import accuracy
from diptych.predictor import Predictor


def classify_rows(
    predictor: Predictor, source: Source, rows: Int64[np.ndarray, " n"], *, column: str
) -> dict[str, float]:
    """Name every picture with one of the values of a column and count how often that is right.

    Returns:
        Top-1 and top-5 accuracy in [0, 1], the number of pictures and of classes.

    Raises:
        UserError: when a row does not have the column.
    """
    named = {}
    for row in rows.tolist():
        fields = source.row(row).fields
        if column not in fields:
            raise UserError(f"there is no column {column!r}{nearest(column, fields)} (there are: {', '.join(fields)})")
        named[row] = str(fields[column]).replace("_", " ")
    labels = sorted(set(named.values()))
    weights = torch.from_numpy(predictor.label_vectors(labels))
    skipped: list[Problem] = []
    scores, truth = [], []
    for piece, vectors in predictor.embed_rows(source, rows, skipped=skipped):
        scores.append(torch.from_numpy(vectors) @ weights.T)
        truth += [labels.index(named[row]) for row in piece.tolist()]
    for problem in skipped:
        typer.echo(f"skipped {problem.where}: {problem.what}", err=True)
    found = accuracy(torch.cat(scores), torch.tensor(truth))
    for name, value in found.items():
        typer.echo(f"{name}: {100 * value:.1f} % of {len(truth):,} pictures in {len(labels)} classes")
    return found | {"pictures": len(truth), "classes": len(labels)}
