"""The page of a comparison: the tables, how everybody learnt, and what each finds for the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from diptych.data.source import Source
from diptych.report.curves import curves
from diptych.report.galleries import View, side_by_side
from diptych.report.page import render
from diptych.report.standings import COSTS, MEANING, Standings, cell, title, versus
from diptych.train.outcome import history

Points = list[tuple[float, float]]


def write_comparison(
    out: Path,
    found: Standings,
    views: Sequence[View],
    source: Source,
    *,
    command: str = "",
    folders: Sequence[Path] = (),
) -> Path:
    """Write `report.html` into the folder of a comparison; one file that needs no network.

    Args:
        out: the folder of the comparison.
        found: who came to what.
        views: the test split as each system with retrieval sees it.
        source: the data.
        command: what was typed.
        folders: of all runs, `NAME/seed-K`.

    Returns:
        Where the page is.
    """
    names = [entry.name for entry in found.entries]
    return render(
        "compare.html.j2",
        out / "report.html",
        {
            "title": f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0],
            "subtitle": found.data,
            "protocol": found.protocol,
            "notes": found.notes,
            "failures": found.failures(),
            "tables": _tables(found),
            "meaning": MEANING,
            "curves": _curves(found, folders),
            "sections": side_by_side(views, source),
            "command": command,
            "settings": [(entry.name, entry.contestant.system, entry.contestant.settings) for entry in found.entries],
        },
    )


def _tables(found: Standings) -> list[dict[str, Any]]:
    """Lay out scores, costs and differences, a row for each contestant; a cell is a text and whether it stands out."""
    names = found.names()
    head = ["", *map(title, names)]
    scores = [
        [
            (entry.title, False),
            *((cell(name, entry.scores.get(name)), found.best(name) == entry.name) for name in names),
        ]
        for entry in found.entries
    ]
    costs = [[(entry.name, False), *((entry.cost(name), False) for name in COSTS)] for entry in found.entries]
    tables = [
        {"title": "Scores", "head": head, "rows": scores},
        {"title": "Costs, means over seeds", "head": ["", *COSTS], "rows": costs},
    ]
    against = [
        [(entry.name, False), *((versus(name, one), one is not None and one.sure) for name, one in _all(entry, names))]
        for entry in found.others()
    ]
    reference = found.reference()
    if reference is not None and against:
        tables.append({"title": f"Differences to {reference.name}", "head": head, "rows": against})
    return tables


def _all(entry: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    return [(name, entry.against.get(name)) for name in names]


def _curves(found: Standings, folders: Sequence[Path]) -> str:
    """Draw the watched score of each contestant, mean over seeds and range, over steps and over time."""
    panels: dict[str, dict[str, Points]] = {}
    bands: dict[str, dict[str, Points]] = {}
    across = {}
    for entry in found.entries:
        for monitor in dict.fromkeys(one.monitor for one in entry.good):
            runs = [_watched(folder, monitor) for folder in folders if folder.parent.name == entry.name]
            for place, what in enumerate(("step", "seconds")):
                panel = f"{title(monitor)} on dev, over {'steps' if place == 0 else 'time'}"
                across[panel] = what
                line, band = _averaged(runs, place)
                panels.setdefault(panel, {})[entry.name] = line
                bands.setdefault(panel, {})[entry.name] = band
    return curves(panels, across=across, bands=bands)


def _watched(folder: Path, monitor: str) -> list[tuple[float, float, float]]:
    """Return step, time and value each time a run was scored on dev."""
    name = f"valid/{monitor}"
    return [(float(line["step"]), float(line["time"]), float(line[name])) for line in history(folder) if name in line]


def _averaged(runs: Sequence[Sequence[tuple[float, float, float]]], place: int) -> tuple[Points, Points]:
    """Join runs that were scored at the same steps, as far as all of them have come.

    Args:
        runs: for each its (step, time, value).
        place: 0 for steps, 1 for time.

    Returns:
        The mean of each point, and the lowest and highest value there.
    """
    begun = [{point[0]: point for point in run} for run in runs if run]
    steps = sorted(set[float]().union(*begun))
    shared = [[run[step] for run in begun] for step in steps if all(step in run for run in begun)]
    line = [(fmean(point[place] for point in points), fmean(point[2] for point in points)) for points in shared]
    return line, [(min(point[2] for point in points), max(point[2] for point in points)) for points in shared]
