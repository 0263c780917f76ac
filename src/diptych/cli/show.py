"""How results look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from diptych.metrics.retrieval import Retrieval
from diptych.search.index import Hit


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
