"""The header of an index on disk: `index.json`, written last when an index is made, so that it is there or is not."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from diptych.core.errors import UserError
from diptych.search.faults import damaged
from diptych.search.vectors import sync_folder

FORMAT = 2
"""1 had no table of words; it is made when such an index is opened for writing."""

_NAME = "index.json"


@dataclass(frozen=True, slots=True)
class Header:
    """What never changes: the format, the length of the vectors and the model that makes them."""

    format: int
    dim: int
    model: str

    def write(self, folder: Path) -> None:
        """Write the header whole or not at all."""
        half = folder / f"{_NAME}.part"
        with half.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        half.replace(folder / _NAME)
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Header:
        """Read the header.

        Raises:
            UserError: when there is no index, it is damaged, or a newer diptych made it.
        """
        if not (folder / _NAME).is_file():
            what = "is not there" if not folder.exists() else "holds no index (no index.json)"
            raise UserError(f"the index {folder} {what}; make one with `diptych index`")
        try:
            values = json.loads((folder / _NAME).read_text(encoding="utf-8"))
            header = cls(format=int(values["format"]), dim=int(values["dim"]), model=str(values["model"]))
        except (ValueError, KeyError, TypeError):
            raise damaged(folder, f"{_NAME} cannot be read") from None
        if header.format > FORMAT:
            raise UserError(
                f"the index {folder} has format {header.format}, this diptych reads up to {FORMAT}: upgrade diptych"
            )
        return header

    @staticmethod
    def there(folder: Path) -> bool:
        """Say whether the folder holds an index."""
        return (folder / _NAME).is_file()
