"""Front door for tables: csv, tsv, jsonl, json and parquet files that name a picture and its captions in each line."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diptych.core.errors import UserError
from diptych.data.columns import Asked, Columns, caption_texts, find_columns
from diptych.data.packed import Packer
from diptych.data.places import Files
from diptych.data.records import Record, read_csv, read_json, read_jsonl, read_tsv
from diptych.data.table import Builder, Table

READERS = {".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".json": read_json}
_PEEKED = 100  # records whose keys make up the columns of a JSON file


class Finder:
    """Finds the files of pictures named in a table, and keeps their paths and stamps.

    Args:
        folders: where relative paths are looked for, in this order.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self._paths, self._stamps = Packer(), array("q")

    def find(self, name: str) -> str | None:
        """Look for a picture; keep its place, or return what is wrong."""
        if "://" in name:
            return f"{name} is a web address; download the pictures first, for example with img2dataset"
        tries = [name] if "\\" not in name else [name, name.replace("\\", "/")]
        for place, folder in enumerate(self.folders):
            for one in tries:
                path = folder / one
                try:
                    status = path.stat()
                except (OSError, ValueError):
                    continue
                if path.is_dir():
                    return f"{name} is a folder, not a picture"
                self._paths.add([str(path)])
                self._stamps.extend((status.st_size, status.st_mtime_ns))
                self.folders.insert(0, self.folders.pop(place))  # the next one is most likely there, too
                return None
        looked = ", ".join(str(folder) for folder in self.folders)
        return f"there is no picture {name} (looked in {looked}; see --image-folder)"

    def places(self) -> Files:
        """Return what was found."""
        return Files(self._paths.packed(), np.array(self._stamps, dtype=np.int64).reshape(-1, 2))


def open_table(path: Path, asked: Asked, image_folder: Path | None = None) -> Table:
    """Read a csv, tsv, jsonl or json file, perhaps packed as `.gz`.

    Args:
        path: the file.
        asked: columns that the user named.
        image_folder: where relative paths begin; otherwise beside the table or in `images/` beside it.

    Raises:
        UserError: for a file that cannot be read as such, a missing column, or no usable line.
    """
    suffix = [one for one in path.suffixes if one != ".gz"][-1].lower()
    builder = Builder(f"{suffix[1:]} file {path.name}", captioned=False)
    records, columns = _columns(READERS[suffix](path, builder.problem), asked, path.name)
    finder = Finder(image_folders(path, image_folder))
    add_records(builder, finder, records, columns)
    return builder.table(finder.places())


def add_records(builder: Builder, finder: Finder, records: Iterable[Record], columns: Columns) -> None:
    """Give the records of a table to a builder, with pictures in files."""
    builder.captioned = bool(columns.captions)
    builder.note = columns.described() + "; "
    for where, record in records:
        name = record.get(columns.image)
        if not isinstance(name, str) or not name.strip():
            builder.problem(where, f"no picture is named in column {columns.image!r}")
            continue
        name = name.strip()
        find = partial(found, finder, builder, name, where)
        add_record(builder, record, columns, key=str(PurePosixPath(name)), where=where, find=find)


def found(finder: Finder, builder: Builder, name: str, where: str) -> bool:
    """Find a picture, or note why it is not found."""
    complaint = finder.find(name)
    if complaint:
        builder.problem(where, complaint)
    return complaint is None


def add_record(
    builder: Builder, record: Mapping[str, Any], columns: Columns, *, key: str, where: str, find: Any
) -> None:
    """Give one record to a builder, its columns sorted out."""
    captions = [text for column in columns.captions for text in caption_texts(record.get(column))]
    if len(columns.captions) > 1:  # of several columns some may well be empty
        captions = [text for text in captions if text.strip()]
    split = record.get(columns.split) if columns.split else None
    taken = {columns.image, columns.split, *columns.captions}
    if columns.label not in ("", "label"):
        taken.add("label")  # another column was named as the label: it takes this name
    fields = {"label" if name == columns.label else name: value for name, value in record.items() if name not in taken}
    builder.add(key, captions, where=where, split=None if split is None else str(split), fields=fields, find=find)


def image_folders(path: Path, image_folder: Path | None) -> list[Path]:
    """Return where the pictures of a table may be, the likeliest first.

    Raises:
        UserError: when the folder that was named is not there.
    """
    if image_folder is not None:
        if not image_folder.is_dir():
            raise UserError(f"there is no folder {image_folder} (given as --image-folder)")
        return [image_folder]
    beside = path.parent
    folders = [beside, beside / "images"]
    if beside.name == "annotations":  # COCO: annotations/captions_val2017.json beside val2017/
        folders += [beside.parent / path.stem.rpartition("_")[2], beside.parent, beside.parent / "images"]
    return folders


def _columns(records: Iterable[Record], asked: Asked, name: str) -> tuple[Iterator[Record], Columns]:
    stream = iter(records)
    first = list(islice(stream, _PEEKED))
    names = list(dict.fromkeys(column for _, record in first for column in record))
    if not names:
        return stream, Columns("", (), "", "")
    return chain(first, stream), find_columns(names, asked, where=name)
