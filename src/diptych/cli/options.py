"""Options that several verbs share, and how their results are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from diptych.core.errors import UserError

INDEX_HELP = "A folder, milvus://HOST:PORT/COLLECTION or postgresql://USER@HOST:PORT/BASE/TABLE"
Json = Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Write the results here as JSON too.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column with the picture; guessed and printed when not given.")]
CaptionColumn = Annotated[str | None, typer.Option(help="Column with the text; guessed and printed when not given.")]
SplitColumn = Annotated[str | None, typer.Option(help="Column with train, dev or test; guessed when not given.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column with the class; guessed when not given.")]
ImageFolder = Annotated[Path | None, typer.Option(help="Where the paths of pictures begin; beside the table.")]


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """Read `key=value` words.

    Raises:
        UserError: for a word without `=`, or a key that is given twice with different values.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes key=value, not {pair!r}; for example --set epochs=20")
        if found.setdefault(key, value) != value:
            raise UserError(f"--set gives {key} twice: {found[key]!r} and {value!r}; keep one")
    return found


def write_json(path: Path | None, results: Mapping[str, Any] | list[Any]) -> None:
    """Write results for other programs; nothing when no path was given."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give --json another path") from None
