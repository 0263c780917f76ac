"""How scores are shown to people: shares in percent, one row for all scores of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SHARES = ("r@", "top", "accuracy", "precision", "recall", "map", "f1", "true", "recognised", "colour", "shape")
"""Beginnings of the names of scores that are shares in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A table of scores, ready to print: names of the columns, and a title and cells for each row."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def show(name: str, value: float) -> str:
    """Write one score: a share as "12.3 %", a count whole, anything else with three digits behind the point."""
    last = name.rpartition("/")[2]
    if last.removeprefix("mean_").startswith(SHARES):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:,.3f}"


def tables(scores: Mapping[str, float]) -> tuple[Shown, ...]:
    """Lay scores out: names that share their last part stand in one column, what is before it names the row.

    Args:
        scores: by flat names, as `image_to_text/r@1`.

    Returns:
        One table for each set of columns.
    """
    groups: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        group, _, last = name.rpartition("/")
        groups.setdefault(group, {})[last] = value
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for group, values in groups.items():
        by_columns.setdefault(tuple(values), []).append(group)
    return tuple(
        Shown(
            tuple(name.replace("_", " ") for name in names),
            tuple(
                (group.replace("_", " ").replace("/", ", "), tuple(show(name, groups[group][name]) for name in names))
                for group in members
            ),
        )
        for names, members in by_columns.items()
    )


def nested(scores: Mapping[str, float]) -> dict[str, object]:
    """Turn flat names into nested ones, for JSON: `{"a/b": 0.5}` into `{"a": {"b": 0.5}}`."""
    found: dict[str, object] = {}
    for name, value in scores.items():
        place, (*groups, last) = found, name.split("/")
        for group in groups:
            place = place.setdefault(group, {})  # type: ignore[assignment]
        place[last] = value
    return found
