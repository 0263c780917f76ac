"""The model card: what a run is, how good, on what, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.core.abilities import Ability
from diptych.data.source import Problem
from diptych.metrics.shown import tables
from diptych.train.checkpoint import read_record

LISTED = 20
"""Rows that a card lists; the log has all."""


def write_card(
    out: Path,
    *,
    scores: Mapping[str, float] | None = None,
    split: str = "test",
    left_out: Sequence[Problem] = (),
    offers: Sequence[Ability] = (),
    protocol: str = "",
) -> Path:
    """Write `README.md` into a run folder, in the form that model hubs show.

    Args:
        out: the run folder.
        scores: by flat names, where they were measured.
        split: on which it was.
        left_out: rows that could not be used; counted, and the first of them listed.
        offers: what the model can do.
        protocol: how the scores came about, where they mean nothing without.
    """
    record = read_record(out)
    data = record.get("data", {})
    lines = [
        "---",
        "library_name: diptych",
        f"tags: [{', '.join(['vision-language', *(ability.tag for ability in offers)])}]",
        "---",
        "",
        f"# {record['system']} trained on {data.get('named', 'unnamed data')}",
        "",
        f"Data: {data.get('source', 'unknown')}.",
        f"{len(left_out):,} rows could not be used:" if left_out else "Every row could be used.",
        *(f"- {problem.where}: {problem.what}" for problem in left_out[:LISTED]),
        "",
        *_scores(scores, split),
        *([protocol, ""] if protocol else []),
        "## Use",
        "",
        "```python",
        "import diptych",
        "",
        f'model = diptych.load("{out.name}")',
        *(ability.python for ability in offers),
        "```",
        "",
        "## How it was made",
        "",
        "```",
        str(record.get("command", "")),
        "```",
        "",
        *_settings(record),
    ]
    path = out / "README.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _scores(scores: Mapping[str, float] | None, split: str) -> list[str]:
    if not scores:
        return []
    lines = [f"## Scores on {split}", ""]
    for shown in tables(scores):
        head = " | ".join(["", *shown.names])
        lines += [f"|{head} |", "|" + " --- |" * (len(shown.names) + 1)]
        lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in shown.rows]
        lines.append("")
    if any(name.endswith("r@1") for name in scores):
        lines += ["Any of a picture's texts counts; ties count against the model.", ""]
    return lines


def _settings(record: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {section}.{name} | `{value}` |"
        for section in ("config", "train", "versions")
        for name, value in record.get(section, {}).items()
    ]
    return ["| setting | value |", "| --- | --- |", *rows]
