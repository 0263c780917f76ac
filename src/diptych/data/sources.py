"""Opens any data: looks at what is given, takes the right front door, and says what it found."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from diptych.core.errors import UserError, nearest
from diptych.data.columns import Asked
from diptych.data.folder import open_folder
from diptych.data.hub import SAVED, open_hub
from diptych.data.parquet import open_parquet
from diptych.data.shards import open_shards
from diptych.data.source import Source
from diptych.data.tables import READERS, open_table

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # names that others use for a folder's table
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_FORMS = (
    "a csv, tsv, jsonl, json or parquet file, a folder of pictures, webdataset shards (shards/{000..099}.tar), "
    "hf:NAME, or scenes"
)


def open_data(
    data: str | Path,
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    label_column: str | None = None,
    image_folder: str | Path | None = None,
) -> Source:
    """Open pictures with captions in any of the usual forms; `name` of the result says what was found.

    Args:
        data: a csv, tsv, jsonl, json (COCO captions, Karpathy's splits, a list of objects) or parquet file, a folder of
            pictures with texts beside them or with telling sub-folders, webdataset shards (one `.tar`, a folder of
            them, `shards/*.tar`, `shards/{000..099}.tar`), `hf:NAME` (a data set of Hugging Face, or a folder of its
            `save_to_disk`), or `scenes` (built in; `scenes:20000`, `scenes?pictures=20000&seed=1`).
        image_column: column with the path or the bytes of the picture; guessed when None.
        caption_column: column with captions, a text or a list; several with commas between; guessed when None.
        split_column: column with train, dev (or val) or test; guessed when None; without one, a hash of the picture's
            name decides: 80 % train, 10 % dev, 10 % test.
        label_column: column with the class; guessed when None.
        image_folder: where relative paths begin; beside the table or in `images/` beside it when None.

    Raises:
        UserError: for data that are not there, have no such column, or hold no usable line.
    """
    text = os.path.expanduser(data)  # noqa: PTH111  it may be no path at all
    asked = Asked(image_column, caption_column, split_column, label_column)
    folder = None if image_folder is None else Path(image_folder)
    path = Path(text)
    if text.startswith("hf:"):
        return open_hub(text.removeprefix("hf:"), asked)
    if not path.exists():
        return _open_pattern(text, asked, folder)
    if path.is_dir():
        return _open_dir(path, asked, folder)
    return _open_file(path, asked, folder)


def _open_pattern(text: str, asked: Asked, image_folder: Path | None) -> Source:
    """Open what is no file: the built-in data, or a pattern of several files."""
    if text.partition("?")[0].partition(":")[0] == "scenes":
        from diptych.data.scenes import open_scenes

        return open_scenes(text)
    if text.endswith(".tar") and any(sign in text for sign in "{*?["):
        return open_shards(text, asked)
    if text.endswith(".parquet"):
        files = [Path(one) for one in sorted(glob.glob(text))]  # noqa: PTH207  the pattern may be absolute
        if files:
            return open_parquet(files, asked, image_folder)
    beside = Path(text).parent
    names = [entry.name for entry in beside.iterdir()] if beside.is_dir() else []
    hint = nearest(Path(text).name, [*names, "scenes"])
    raise UserError(f"there is no {text!r}{hint} (data can be {_FORMS})")


def _open_dir(path: Path, asked: Asked, image_folder: Path | None) -> Source:
    if any((path / name).is_file() for name in SAVED):
        return open_hub(str(path), asked)
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    if any(name.endswith(".tar") for name in names):
        return open_shards(str(path), asked)
    tables = [name for name in _METADATA if name in names][:1] or [
        name for name in names if name.removesuffix(".gz").endswith(_TABLES)
    ]
    parquets = [name for name in tables if name.endswith(".parquet")]
    if len(parquets) > 1 and parquets == tables:
        return open_parquet([path / name for name in parquets], asked, image_folder)
    if len(tables) > 1:
        raise UserError(f"the folder {path} holds several tables ({', '.join(tables)}); name the one to read")
    return _open_file(path / tables[0], asked, image_folder) if tables else open_folder(path, asked)


def _open_file(path: Path, asked: Asked, image_folder: Path | None) -> Source:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".tar" and not path.name.endswith(".gz"):
        return open_shards(str(path), asked)
    if suffix == ".parquet":
        return open_parquet([path], asked, image_folder)
    if suffix in READERS:
        return open_table(path, asked, image_folder)
    raise UserError(f"{path} is of no known form (data can be {_FORMS})")
