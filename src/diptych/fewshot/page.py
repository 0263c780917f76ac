"""The page of a few-shot comparison: accuracy over shots as curves with intervals, the table, and what was kept."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.core.errors import UserError
from diptych.fewshot.study import Study, summary
from diptych.report.curves import COLOURS, GRID, INK
from diptych.report.page import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = Mapping[str, Any]


def write_page(out: Path, study: Study, *, title: str, command: str) -> Path:
    """Write one HTML file that needs no network.

    Args:
        out: the file.
        study: with its scores.
        title: what was compared, for people.
        command: what was typed.
    """
    rows = list(summary(study.scores))
    shots = sorted({row["shots"] for row in rows})
    values: dict[str, object] = {
        "title": title,
        "subtitle": subtitle(study),
        "curves": _svg(_figure(rows, shots)),
        "head": ["", *(f"{count} shot{'s' if count > 1 else ''}" for count in shots)],
        "rows": [[name, *(shown(cell) for cell in cells)] for name, cells in table(rows, shots)],
        "kept": kept_lines(rows),
        "notes": notes(study),
        "command": command,
        "settings": list(_settings(study.config.model_dump(mode="json"))),
    }
    return render("fewshot.html.j2", out, values)


def check_plot(out: Path | None) -> None:
    """Check, before anything is computed, that a plot can have this name.

    Raises:
        UserError: for an ending other than .png, .svg or .pdf.
    """
    if out is not None and out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"{out} ends in {out.suffix!r}; --plot writes .png, .svg or .pdf")


def write_plot(out: Path, study: Study) -> Path:
    """Write the curves alone, as .png, .svg or .pdf."""
    rows = list(summary(study.scores))
    figure = _figure(rows, sorted({row["shots"] for row in rows}))
    figure.patch.set_facecolor("white")
    figure.patch.set_alpha(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=160)
    return out


def table(rows: Sequence[Cell], shots: Sequence[int]) -> list[tuple[str, list[Cell | None]]]:
    """Put the means in a line a method, a place a number of shots; None where nothing came out."""
    found = {(row["method"], row["shots"]): row for row in rows}
    return [(name, [found.get((name, count)) for count in shots]) for name in dict.fromkeys(r["method"] for r in rows)]


def shown(cell: Cell | None) -> str:
    """Write a mean with its interval, in per cent."""
    if cell is None:
        return "-"
    half = cell["top1_half_width"]
    return f"{100 * cell['top1']:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def kept_lines(rows: Sequence[Cell]) -> list[str]:
    """Say what fine-tuning did to another task, for each number of shots."""
    lines = []
    for row in rows:
        if "kept" in row:
            kept = {name: value if name == "task" else f"{100 * value:.1f} %" for name, value in row["kept"].items()}
            lines.append(
                f"{row['method']}, {row['shots']} shots: {kept['task']}: {kept['before']} before fine-tuning, "
                f"{kept['after']} after all of it, {kept['chosen']} at the share that validation chose"
            )
    return lines


def subtitle(study: Study) -> str:
    """Say what is tested on."""
    labelled, each = study.labelled, study.config.test_per_class
    some = f", {each} a class at most" if each else ""
    return (
        f"{len(labelled.names)} classes by column {labelled.column!r}, {len(study.readable_test()[0]):,} pictures of "
        f"split {labelled.split}{some}; accuracy in %, mean and 95 % interval over draws of shots"
    )


def notes(study: Study) -> list[str]:
    """Say what was left out or falls short."""
    lines = [f"{name} is left out: {why}" for name, why in study.left_out.items()]
    lines += [
        f"{count} of {len(study.labelled.names)} classes have fewer than {shots} pictures beside those for validation"
        for shots, count in study.short.items()
        if count
    ]
    if study.labelled.unknown:
        lines.append(f"{study.labelled.unknown:,} test pictures are of classes that training does not have: left out")
    if study.pictures.skipped:
        lines.append(f"{len(study.pictures.skipped):,} pictures cannot be read: left out")
    return lines


def _figure(rows: Sequence[Cell], shots: Sequence[int]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for place, (name, cells) in enumerate(table(rows, shots)):
        there = [cell for cell in cells if cell is not None]
        aside = 1.0 if name == "zero-shot" else 1.015 ** (place - 4)  # so that no bar hides another
        x, y = [aside * cell["shots"] for cell in there], [100 * cell["top1"] for cell in there]
        bars = [100 * (cell["top1_half_width"] or 0.0) for cell in there]
        colour, dashes = (INK, "--") if name == "zero-shot" else (COLOURS[place % len(COLOURS)], "-")
        dashes = dashes if place <= len(COLOURS) else ":"
        axes.plot(x, y, color=colour, label=name, linestyle=dashes, marker="o", markersize=3.5, linewidth=1.8)
        axes.errorbar(x, y, yerr=bars, color=colour, linestyle="", elinewidth=1, capsize=2, alpha=0.55)
    axes.set_ylim(max(0.0, axes.get_ylim()[0]), min(100.0, axes.get_ylim()[1]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("shots a class", color=INK, fontsize=9)
    axes.set_ylabel("accuracy in %", color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6, alpha=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(GRID)
    figure.legend(loc="outside right center", frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _settings(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        lines += _settings(value, f"{name}.") if isinstance(value, dict) else [(before + name, str(value))]
    return lines
