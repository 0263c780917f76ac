"""What goes with one picture in a folder or a shard: a text or JSON file of the same name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from diptych.core.errors import UserError
from diptych.data.columns import Asked, find_columns
from diptych.data.table import Builder
from diptych.data.tables import add_record

TEXT_SUFFIXES = (".json", ".cls", ".caption", ".txt")  # captions of the later win
PEEKED = 100  # examples looked at to see whether there are captions at all


def read_sidecar(record: dict[str, Any], suffix: str, data: bytes, complain: Callable[[str], None]) -> None:
    """Add what a file says to a record: the lines of a text as captions, the columns of a JSON object."""
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text) if suffix == ".json" else text
    except UnicodeDecodeError as error:
        complain(f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8")
    except ValueError as error:
        complain(f"not valid JSON: {error}")
    else:
        if suffix == ".cls":
            record["label"] = found.strip()
        elif isinstance(found, dict):
            record |= found
        elif isinstance(found, str):
            record["captions"] = [line for line in found.splitlines() if line.strip()]
        else:
            record["captions"] = found


def has_captions(records: Sequence[dict[str, Any]], asked: Asked) -> bool:
    """Say whether any of some records has captions, or should have as the user says."""
    if asked.caption:
        return True
    return any(find_columns(list(one), Asked(caption=asked.caption), where="", image=False).captions for one in records)


def add_sidecars(
    builder: Builder,
    record: dict[str, Any],
    asked: Asked,
    *,
    key: str,
    split: str | None,
    find: Callable[[], bool],
) -> None:
    """Give one picture with what goes with it to a builder; `split` counts when the record does not name one."""
    try:
        columns = find_columns(list(record), asked, where=key, image=False)
    except UserError as error:
        builder.problem(key, str(error))
        return
    if not columns.split:
        record, columns = record | {"split": split}, replace(columns, split="split")
    add_record(builder, record, columns, key=key, where=key, find=find)
