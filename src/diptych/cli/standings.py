"""How a comparison looks in a terminal: a row for each score, a column for each contestant."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diptych.report.standings import COSTS, MEANING, Entry, Standings, cell, title, versus

WIDTH = 17
"""Characters that a contestant's column takes; as many stand side by side as the terminal is wide."""


def show_standings(found: Standings) -> None:
    """Print protocol, scores, costs and differences."""
    for line in found.protocol:
        typer.echo(line)
    console = Console()
    names = found.names()
    first = max([len(title(name)) for name in names] + [len(cost) for cost in COSTS])
    fits = max(1, (console.width - first - 2) // WIDTH)
    scored = [entry for entry in found.entries if entry.good]
    for start in range(0, len(scored), fits):
        console.print(_scores(found, scored[start : start + fits]))
    reference = found.reference()
    if reference is not None and found.others():
        console.print(_against(found, reference))
    typer.echo(MEANING)


def _table(heading: str, entries: Sequence[Entry]) -> Table:
    table = Table(title=heading, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for entry in entries:
        table.add_column(Text(f"{entry.name} (n={len(entry.good)})"), justify="right", overflow="fold")
    return table


def _scores(found: Standings, entries: Sequence[Entry]) -> Table:
    table = _table("", entries)
    for name in found.names():
        best = found.best(name)
        cells = (
            Text(cell(name, entry.scores.get(name)), style="bold green" if entry.name == best else "")
            for entry in entries
        )
        table.add_row(title(name), *cells)
    table.add_row("")
    for cost in COSTS:
        table.add_row(cost, *(Text(entry.cost(cost)) for entry in entries))
    return table


def _against(found: Standings, reference: Entry) -> Table:
    """Show the differences in what chose the weights; the page has all of them."""
    table = Table(title=f"\nDifference to {reference.name}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    watched = dict.fromkeys(one.monitor for entry in found.entries for one in entry.good)
    names = [name for name in watched if name in found.names()]
    for name in ("", *map(title, names)):
        table.add_column(name, justify="right" if name else "left")
    for entry in found.others():
        differences = [entry.against.get(name) for name in names]
        cells = (
            Text(versus(name, one), style="bold" if one is not None and one.sure else "")
            for name, one in zip(names, differences, strict=True)
        )
        table.add_row(Text(entry.name), *cells)
    return table
