"""How results look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer
from rich.console import Console
from rich.table import Table

from diptych.data.source import Source
from diptych.metrics.retrieval import Retrieval
from diptych.search.index import Hit

TOLD = 5
"""So many problems of some data are told; `diptych check` tells all."""


def show_source(source: Source) -> None:
    """Say what was opened and, on standard error, the first things that are wrong with it."""
    typer.echo(source.name)
    for problem in source.problems[:TOLD]:
        typer.echo(f"{'noticed' if problem.kept else 'left out'} {problem.where}: {problem.what}", err=True)
    if len(source.problems) > TOLD:
        typer.echo(f"and {len(source.problems) - TOLD:,} more; `diptych check` lists all", err=True)


def show_scores(scores: Retrieval, *, split: str) -> None:
    """Print retrieval scores, a row for each direction."""
    table = Table(title=f"Retrieval on {split}: {scores['pairs']:,} texts", title_justify="left", box=None)
    names = list(scores["image_to_text"])
    for name in ("", *names):
        table.add_column(name.replace("_", " "), justify="left" if not name else "right")
    rows: Mapping[str, Mapping[str, float]] = {
        "image to text": scores["image_to_text"],
        "text to image": scores["text_to_image"],
    }
    for title, row in rows.items():
        cells = (f"{100 * row[name]:.1f} %" if name.startswith("r@") else f"{row[name]:.1f}" for name in names)
        table.add_row(title, *cells)
    Console().print(table)


def show_hits(hits: Sequence[Hit]) -> None:
    """Print what a search found, best first."""
    table = Table("", "score", "picture", "text", box=None)
    for place, hit in enumerate(hits, start=1):
        table.add_row(str(place), f"{hit.score:.3f}", hit.key, (hit.text or "").partition("\n")[0])
    Console().print(table)
