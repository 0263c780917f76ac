"""The page of a search: the pictures found, with scores and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diptych.core.errors import UserError
from diptych.data.images import decode
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.report.page import data_uri, render
from diptych.search.index import Hit


def write_hits(out: Path, index: str | Path, query: str, hits: Sequence[Hit]) -> Path:
    """Write one HTML file with the pictures that were found; a picture that is gone leaves an empty frame.

    Args:
        out: the file.
        index: its folder or address.
        query: what was looked for.
        hits: what was found, best first.
    """
    sources: dict[str, Source | None] = {}
    found = []
    for hit in hits:
        named = str(hit.metadata.get("_data", ""))
        if named not in sources:
            sources[named] = _open(named)
        found.append(
            {
                "image": _picture(sources[named], hit),
                "caption": (hit.text or hit.key).splitlines()[0],
                "score": hit.score,
                "right": False,
            }
        )
    section = {
        "title": "Found",
        "note": f"{len(hits)} nearest pictures, cosine similarity before each text",
        "queries": [{"title": query, "note": "", "query": "", "found": found}],
    }
    values: dict[str, object] = {
        "title": query,
        "subtitle": f"searched in {index}",
        "tiles": [],
        "tables": [],
        "curves": "",
        "sections": [section],
        "command": f'diptych search {index} "{query}"',
        "settings": [],
    }
    return render("run.html.j2", out, values)


def _open(named: str) -> Source | None:
    try:
        return open_data(named)
    except UserError:
        return None


def _picture(source: Source | None, hit: Hit) -> str:
    row = hit.metadata.get("_row", -1)
    try:
        if source is None or not 0 <= row < len(source) or source.row(row).key != hit.key:
            return ""
        return data_uri(decode(source.picture(row), size=160, crop="center").permute(1, 2, 0).numpy())
    except UserError:
        return ""
