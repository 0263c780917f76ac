"""Curves of a run or of several as one SVG: losses and scores over epochs, steps or time."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

INK, GRID = "#667085", "#d0d5dd"
COLOURS = ("#2563eb", "#e11d48", "#059669", "#d97706", "#7c3aed", "#0891b2")
STYLES = ("-", "--", ":")


def curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    *,
    across: Mapping[str, str] | None = None,
    bands: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
) -> str:
    """Draw one panel beside the other.

    Args:
        panels: for each panel's title its lines by name, each a list of (x, value).
        across: what x is in a panel, where it is not the epoch.
        bands: for a panel's line the lowest and highest value at each of its points, shaded.

    Returns:
        An `<svg>` element to put into a page; empty when there is nothing to draw.
    """
    panels = {title: {k: v for k, v in lines.items() if v} for title, lines in panels.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 3.1), layout="constrained")
    figure.patch.set_alpha(0)
    for place, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.patch.set_alpha(0)
        for number, (name, points) in enumerate(lines.items()):
            x, y = zip(*points, strict=True)
            colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
            marker = "o" if len(x) < 25 else ""
            axes.plot(x, y, style, color=colour, linewidth=1.8, marker=marker, markersize=3, label=name)
            if name in (bands or {}).get(title, {}):
                low, high = zip(*(bands or {})[title][name], strict=True)
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        axes.set_xlabel((across or {}).get(title, "epoch"), color=INK, fontsize=9)
        axes.tick_params(colors=INK, labelsize=8)
        axes.grid(color=GRID, linewidth=0.6, alpha=0.6)
        for side, spine in axes.spines.items():
            spine.set_visible(side in {"left", "bottom"})
            spine.set_color(GRID)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
