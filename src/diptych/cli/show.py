"""How results look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer
from rich.console import Console
from rich.table import Table

from diptych.data.source import Source
from diptych.metrics.shown import tables
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


def show_scores(scores: Mapping[str, float], *, split: str, protocol: str = "") -> None:
    """Print scores by flat names, a row for each kind of them, and how they came about where that must be known."""
    title = f"Scores on {split}"
    for shown in tables(scores):
        table = Table(title=title, title_justify="left", box=None)
        table.add_column("")
        for name in shown.names:
            table.add_column(name, justify="right")
        for row, cells in shown.rows:
            table.add_row(row, *cells)
        Console().print(table)
        title = ""
    if protocol:
        typer.echo(protocol)


def show_hits(hits: Sequence[Hit]) -> None:
    """Print what a search found, best first."""
    table = Table("", "score", "picture", "text", box=None)
    for place, hit in enumerate(hits, start=1):
        table.add_row(str(place), f"{hit.score:.3f}", hit.key, (hit.text or "").partition("\n")[0])
    Console().print(table)
