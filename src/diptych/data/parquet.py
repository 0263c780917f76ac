"""Front door for parquet files: pictures by path, as bytes, or as Hugging Face's structs of bytes and path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diptych.core.errors import UserError
from diptych.data.cells import CellAdder, cell_bytes, cell_name
from diptych.data.columns import Asked, find_columns
from diptych.data.places import Cells, file_stamp
from diptych.data.records import Record
from diptych.data.source import split_name
from diptych.data.table import Builder, Table
from diptych.data.tables import Finder, add_records, image_folders


def open_parquet(paths: Sequence[Path], asked: Asked, image_folder: Path | None = None) -> Table:
    """Read parquet files that have the same columns.

    Pictures inside of the files are held in memory; data larger than that belong in shards.

    Raises:
        UserError: when pyarrow is not installed, a file is damaged, or a column is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("parquet files need pyarrow: pip install 'diptych[data]'") from None
    try:
        files = [pyarrow.parquet.ParquetFile(path, memory_map=True) for path in paths]
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{paths[0].parent} holds a parquet file that cannot be read: {error}") from None
    names = files[0].schema_arrow.names
    other = next((path for path, file in zip(paths, files, strict=True) if file.schema_arrow.names != names), None)
    if other:
        raise UserError(f"{other.name} has other columns than {paths[0].name}; read them one by one")
    columns = find_columns(names, asked, where=paths[0].name)
    kind = f"parquet file {paths[0].name}" if len(paths) == 1 else f"{len(paths)} parquet files"
    builder = Builder(kind, captioned=False)
    if pyarrow.types.is_string(files[0].schema_arrow.field(columns.image).type):
        finder = Finder(image_folders(paths[0], image_folder))
        for path, file in zip(paths, files, strict=True):
            add_records(builder, finder, _records(path, file, names), columns)
        return builder.table(finder.places())
    chunks: list[Any] = []
    adder = CellAdder(builder, columns)
    for path, file in zip(paths, files, strict=True):
        first = sum(len(chunk) for chunk in chunks)
        cells = file.read([columns.image]).column(0)
        if chunks and cells.type != chunks[0].type:
            raise UserError(f"{path.name} holds its pictures as {cells.type}, {paths[0].name} as {chunks[0].type}")
        chunks += cells.chunks
        named = _named(path, file, [name for name in names if name != columns.image], cells, columns.image, first)
        adder.add(named, split=split_name(path.stem.split("-")[0]))
    fetch = Column(pyarrow.chunked_array(chunks), image_folder or paths[0].parent)
    return builder.table(Cells(fetch, adder.rows(), "|".join(map(file_stamp, paths))))


class Column:
    """A column of pictures in memory."""

    def __init__(self, cells: Any, folder: Path) -> None:
        self.cells, self.folder = cells, folder

    def __call__(self, row: int) -> bytes:
        """Return the picture of a row."""
        return cell_bytes(self.cells[row].as_py(), self.folder)


def _records(path: Path, file: Any, names: list[str]) -> Iterator[Record]:
    number = 0
    for batch in file.iter_batches(columns=names):
        for record in batch.to_pylist():
            yield f"{path.name} row {number}", record
            number += 1


def _named(path: Path, file: Any, names: list[str], cells: Any, image: str, first: int) -> Iterator[Record]:
    """Yield the records without the pictures' bytes, each with its row and the picture's name."""
    inside = cells.type.num_fields and cells.type.get_field_index("path") >= 0
    paths = cells.combine_chunks().field("path") if inside else None
    for number, (where, record) in enumerate(_records(path, file, names)):
        name = None if paths is None else cell_name(paths[number].as_py())
        yield where, {**record, image: name, "row": first + number}
