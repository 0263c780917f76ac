"""The page of a check: what is wrong with some data, with the pictures it is wrong with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from diptych.data.check import CheckResult, Finding, Spot
from diptych.data.images import BadPicture, decode
from diptych.data.source import Source
from diptych.report.page import data_uri, render

SHOWN = 12
"""Pictures of each kind that the page shows; the list of all is a file beside it."""


def write_check(out: Path, source: Source, result: CheckResult) -> Path:
    """Write the page of a check.

    Args:
        out: the HTML file.
        source: that was checked.
        result: what was found.
    """
    values: dict[str, object] = {
        "title": "What is in the data",
        "subtitle": result.name,
        "tiles": [
            {"value": f"{result.pictures:,}", "name": "pictures"},
            {"value": f"{result.captions:,}", "name": "captions"},
            *({"value": f"{count:,}", "name": name} for name, count in result.splits.items() if count),
            *_severities(result),
        ],
        "kinds": [_kind(source, finding) for finding in result.findings],
        "left_out": [f"{problem.where}: {problem.what}" for problem in result.left_out[:SHOWN]],
        "left_out_count": len(result.left_out),
        "tables": list(_tables(result)),
    }
    return render("check.html.j2", out, values)


def summary_rows(result: CheckResult) -> list[tuple[str, str, int, str]]:
    """Return for each kind of finding how bad it is, its name, how many rows it has, and what it means."""
    rows = [(finding.severity, finding.kind, len(finding), finding.meaning) for finding in result.findings]
    if result.left_out:
        rows.insert(0, ("error", "left out", len(result.left_out), "rows that could not be used at all"))
    return rows


def _severities(result: CheckResult) -> list[dict[str, str]]:
    counts: dict[str, int] = {}
    for severity, _, count, _ in summary_rows(result):
        counts[severity] = counts.get(severity, 0) + count
    return [{"value": f"{count:,}", "name": f"rows with {severity}s"} for severity, count in counts.items()]


def _kind(source: Source, finding: Finding) -> dict[str, Any]:
    groups = []
    left = SHOWN
    for spots, note in zip(finding.groups, finding.notes, strict=True):
        if left <= 0:
            break
        shown = spots[: min(left, 4)]
        left -= len(shown)
        groups.append({"note": note, "pictures": [_spot(source, spot) for spot in shown]})
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "count": len(finding),
        "meaning": finding.meaning,
        "advice": finding.advice,
        "groups": groups,
    }


def _spot(source: Source, spot: Spot) -> dict[str, str]:
    row = source.row(spot.row)
    try:
        image = data_uri(decode(source.picture(spot.row), size=128, crop="center").permute(1, 2, 0).numpy(), side=128)
    except BadPicture:
        image = ""
    return {"image": image, "key": spot.key, "split": spot.split, "caption": next(iter(row.captions), "")}


def _tables(result: CheckResult) -> list[dict[str, Any]]:
    known = result.sizes[(result.sizes > 0).all(1)]
    tables = [
        _counts("Formats", result.formats),
        _counts("Writing of the captions", result.scripts),
        _counts("Captions a picture", result.captions_per_picture),
    ]
    if len(known):
        tables.append(_spread("Pixels", {"height": known[:, 0], "width": known[:, 1]}))
    lengths = {"words": result.words, "tokens": result.tokens}
    lengths = {name: values for name, values in lengths.items() if len(values)}
    if lengths:
        tables.append(_spread("Length of the captions", lengths))
    return tables


def _counts(title: str, counts: Mapping[Any, int]) -> dict[str, Any]:
    rows = [[str(name), f"{count:,}"] for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    return {"title": title, "head": ["", "count"], "rows": rows}


def _spread(title: str, columns: Mapping[str, Int64[np.ndarray, " n"]]) -> dict[str, Any]:
    places: Sequence[tuple[str, float]] = (("least", 0), ("5 %", 5), ("median", 50), ("95 %", 95), ("most", 100))
    rows = [
        [name, *(f"{np.percentile(values, place):,.0f}" for _, place in places)] for name, values in columns.items()
    ]
    return {"title": title, "head": ["", *(name for name, _ in places)], "rows": rows}
