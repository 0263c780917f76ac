"""Front door for a folder of pictures: texts of the same name beside them, or sub-folders that say what they show."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from diptych.core.errors import UserError
from diptych.data.columns import Asked
from diptych.data.formats import PICTURE_SUFFIXES
from diptych.data.sidecar import PEEKED, TEXT_SUFFIXES, add_sidecars, has_captions, read_sidecar
from diptych.data.source import split_name
from diptych.data.table import Builder, Table
from diptych.data.tables import Finder, found


def open_folder(folder: Path, asked: Asked) -> Table:
    """Read every picture below a folder.

    `dog.txt` beside `dog.jpg` holds one caption a line; `dog.json` an object with captions and other columns. Where
    no picture has either, the name of its folder is its label and its caption. A first folder named as a split
    (`train/`, `val/`, `test/`) is one.

    Raises:
        UserError: when there is no picture.
    """
    files = set(_files(folder))
    pictures = sorted(name for name in files if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise UserError(f"the folder {folder} holds no picture (looked for {', '.join(sorted(PICTURE_SUFFIXES))})")
    builder = Builder(f"folder {folder.name or folder}", captioned=False)
    texted = [name for name in pictures if _texts(name, files)]
    records = [_record(folder, name, files, lambda what: None) for name in texted[:PEEKED]]
    builder.captioned = has_captions(records, asked)
    labelled = not texted and any(_place(name)[1] for name in pictures)
    how = "captions from the files beside the pictures" if builder.captioned else "no captions"
    builder.note = f"{'label and caption = name of the folder' if labelled else how}; "
    finder = Finder([folder])
    for name in pictures:
        split, parts = _place(name)
        find = partial(found, finder, builder, name, name)
        if texted:
            record = _record(folder, name, files, partial(builder.problem, name))
            add_sidecars(builder, record, asked, key=name, split=split, find=find)
        else:
            label = re.sub(r"[_\-\s]+", " ", parts[-1]).strip() if parts else ""
            fields = ({"label": label} if label else {}) | ({"folder": "/".join(parts)} if len(parts) > 1 else {})
            builder.add(name, [label], where=name, split=split, fields=fields, find=find)
    return builder.table(finder.places())


def _files(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from ((Path(place) / name).relative_to(folder).as_posix() for name in files if not name.startswith("."))


def _texts(name: str, files: set[str]) -> list[str]:
    stem = name.removesuffix(PurePosixPath(name).suffix)
    return [stem + suffix for suffix in TEXT_SUFFIXES if stem + suffix in files]


def _record(folder: Path, name: str, files: set[str], complain: Callable[[str], None]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for text in _texts(name, files):
        read_sidecar(record, PurePosixPath(text).suffix, (folder / text).read_bytes(), complain)
    return record


def _place(name: str) -> tuple[str | None, list[str]]:
    """Part a path into its split, if the first folder is one, and the other folders."""
    parts = name.split("/")[:-1]
    split = split_name(parts[0]) if parts else None
    return (split, parts[1:]) if split else (None, parts)
