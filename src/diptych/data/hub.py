"""Front door for the `datasets` library: `hf:NAME` on the hub or in its cache, or a folder of `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.core.errors import UserError
from diptych.data.cells import CellAdder, cell_bytes, cell_name
from diptych.data.columns import Asked, Columns, find_columns
from diptych.data.places import Cells
from diptych.data.records import Record
from diptych.data.table import Builder, Table

SAVED = ("dataset_dict.json", "dataset_info.json")  # what save_to_disk leaves in its folder


def open_hub(name: str, asked: Asked) -> Table:
    """Read a data set with its own splits.

    Args:
        name: a folder written by `save_to_disk`, or a name on the hub, perhaps with a configuration: `owner/name:en`.
        asked: columns that the user named.

    Raises:
        UserError: when the library is not installed, or the data set is neither here nor to be had.
    """
    parts = _load(name)
    first = next(iter(parts.values()))
    columns = find_columns(first.column_names, _with_image(first, asked), where=f"hf:{name}")
    builder = Builder(f"Hugging Face data set {Path(name).name}", captioned=False)
    adder = CellAdder(builder, columns)
    pictures: list[Any] = []
    start = 0
    for split, part in parts.items():
        undecoded = _undecoded(part, columns.image)
        pictures.append(undecoded.select_columns([columns.image]))
        adder.add(_records(split, undecoded, columns, start), split=split)
        start += len(part)
    stamp = "|".join(str(part._fingerprint) for part in parts.values())
    return builder.table(Cells(Rows(pictures, columns.image), adder.rows(), stamp))


class Rows:
    """The pictures of several data sets, numbered through."""

    def __init__(self, parts: list[Any], column: str) -> None:
        self.parts, self.column = parts, column

    def __call__(self, row: int) -> bytes:
        """Return the picture of a row."""
        for part in self.parts:
            if row < len(part):
                return cell_bytes(part[row][self.column], Path())
            row -= len(part)
        raise IndexError(row)


def _load(name: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise UserError("Hugging Face data sets need the datasets library: pip install 'diptych[data]'") from None
    try:
        if any((Path(name) / file).is_file() for file in SAVED):
            loaded = datasets.load_from_disk(name)
        else:
            repository, _, configuration = name.partition(":")
            loaded = datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # no network, no such name, a script that is no longer run: all the user's to mend
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no data set {name!r} here or on the hub: {reason}") from None
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}


def _with_image(part: Any, asked: Asked) -> Asked:
    """Prefer a column that is declared as pictures to one that only has the right name."""
    from datasets import Image

    declared = [name for name, feature in part.features.items() if isinstance(feature, Image)]
    if asked.image or not declared:
        return asked
    return Asked(declared[0], asked.caption, asked.split, asked.label)


def _undecoded(part: Any, column: str) -> Any:
    from datasets import Image

    return part.cast_column(column, Image(decode=False)) if isinstance(part.features[column], Image) else part


def _records(split: str, part: Any, columns: Columns, start: int) -> Iterator[Record]:
    from datasets import ClassLabel

    words = {name: feature for name, feature in part.features.items() if isinstance(feature, ClassLabel)}
    others = part.select_columns([name for name in part.column_names if name != columns.image])
    names = _names(part, columns.image)
    rows: Iterator[Any] = iter(others) if others.column_names else ({} for _ in range(len(part)))
    for number, record in enumerate(rows):
        values = dict(record) | {columns.image: names[number] if names else None, "row": start + number}
        for name, feature in words.items():
            if isinstance(values.get(name), int) and values[name] >= 0:
                values[name] = feature.int2str(values[name])
        yield f"{split or 'row'} {number}", values


def _names(part: Any, column: str) -> list[str | None]:
    """Return the path of each picture, as far as it is known without reading any."""
    table = part.select_columns([column]).with_format("arrow")
    found: list[str | None] = []
    for start in range(0, len(table), 1000):
        cells = table[start : start + 1000].column(0).combine_chunks()
        if cells.type.num_fields:
            if cells.type.get_field_index("path") < 0:
                return []
            cells = cells.field("path")
        elif "string" not in str(cells.type):
            return []
        found += [cell_name(value) for value in cells.to_pylist()]
    return found
