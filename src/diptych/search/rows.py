"""What is stored beside the vectors, checked before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from diptych.core.errors import UserError


def rows_of(
    keys: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None, texts: Sequence[str | None] | None
) -> list[tuple[str, str, str | None]]:
    """Put keys, metadata as JSON and texts together, row by row.

    Raises:
        UserError: for lengths that differ, a key given twice or one that cannot be stored, metadata that is not JSON.
    """
    _same_length(keys, metadata, "metadata")
    _same_length(keys, texts, "texts")
    twice = [key for key, times in Counter(keys).items() if times > 1]
    if twice:
        more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
        raise UserError(f"the key {twice[0]!r}{more} is given twice in one call: keys name one item each")
    notes = ["{}"] * len(keys) if metadata is None else [_json(k, m) for k, m in zip(keys, metadata, strict=True)]
    said = [None] * len(keys) if texts is None else texts
    for value in (*keys, *(text for text in said if text is not None)):
        _check_text(value)
    return list(zip(keys, notes, said, strict=True))


def _same_length(keys: Sequence[str], others: Sequence[Any] | None, what: str) -> None:
    if others is not None and len(others) != len(keys):
        raise UserError(f"{len(others)} {what} were given for {len(keys)} keys: give one for each")


def _json(key: str, values: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(values), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the metadata of {key!r} is not JSON: {error}; give texts, numbers, lists and such") from None
    _check_text(text)
    return text


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{value!r} cannot be stored: it holds half a character (a wrongly decoded name?)") from None
    if "\0" in value:
        raise UserError(f"{value!r} cannot be stored: it holds a zero byte")
