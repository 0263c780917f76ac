"""Pictures in a column of a table: bytes, paths, or the structs of bytes and path that Hugging Face writes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.columns import Columns
from diptych.data.images import BadPicture
from diptych.data.records import Record
from diptych.data.table import Builder
from diptych.data.tables import add_record

_KEYS = ("key", "id", "image_id", "img_id", "imgid", "filename", "file_name")


def cell_bytes(value: Any, folder: Path) -> bytes:
    """Return the file in a cell.

    Args:
        value: bytes, a path, or a mapping with "bytes" and "path".
        folder: where a relative path begins.

    Raises:
        BadPicture: for an empty cell or a file that cannot be read.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not value:
        raise BadPicture("the cell is empty", kind="missing")
    try:
        return (folder / str(value)).read_bytes()
    except OSError as error:
        raise BadPicture(f"{value} cannot be read: {error.strerror or error}", kind="missing") from None


class CellAdder:
    """Gives records to a builder whose pictures are cells, and keeps the number of the row where each one is."""

    def __init__(self, builder: Builder, columns: Columns) -> None:
        self.builder, self.columns = builder, columns
        self._rows = array("q")
        builder.captioned = bool(columns.captions)
        builder.note = columns.described() + "; "

    def add(self, records: Iterable[Record], *, split: str | None) -> None:
        """Add records; each holds the number of its row as "row", and in the picture's column its name or None.

        Rows of the same name are about the same picture. `split` counts where the records do not name one.
        """
        columns = self.columns if self.columns.split else replace(self.columns, split="split")
        for where, record in records:
            values = dict(record)
            row = values.pop("row")
            name = values.get(columns.image) or next((values[key] for key in _KEYS if values.get(key)), None)
            if not self.columns.split:
                values["split"] = split
            key = f"row {row}" if name is None else str(name)
            add_record(self.builder, values, columns, key=key, where=where, find=partial(self._keep, row))

    def _keep(self, row: int) -> bool:
        self._rows.append(row)
        return True

    def rows(self) -> np.ndarray:
        """Return the rows of the pictures."""
        return np.array(self._rows, dtype=np.int64)


def cell_name(value: Any) -> str | None:
    """Return the path in a cell, by which rows about the same picture are known; None for bare bytes."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) and value else None
