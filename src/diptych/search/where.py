"""Filters on metadata, as SQL conditions over a JSON column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diptych.core.errors import UserError, unknown

_RANGE = (">=", ">", "<=", "<")


def condition(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Translate a filter (see `diptych.search.index.Where`) for a table whose `metadata` column holds JSON.

    Returns:
        An SQL expression and its parameters.

    Raises:
        UserError: for a condition that is not one.
    """
    parts, values = ["1"], []
    for field, wanted in where.items():
        part, its_values = _field(field, wanted)
        parts.append(part)
        values += its_values
    return " AND ".join(parts), values


def path(field: str) -> str:
    """Return the JSON path of a field of the metadata.

    Raises:
        UserError: for a name that JSON paths of SQLite cannot spell.
    """
    if '"' in field:
        raise UserError(f"cannot filter on the field {field!r}: its name holds a double quote")
    return f'$."{field}"'


def values_of(field: str, wanted: Any) -> list[str | int | float]:
    """Return the values of which a filter wants any.

    Raises:
        UserError: for a value that is none.
    """
    allowed = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
    for value in allowed:
        if not isinstance(value, (str, int, float)):
            raise UserError(f"cannot filter {field!r} by {value!r}: give texts, numbers, true or false")
    return allowed


def bounds_of(field: str, wanted: Mapping[str, Any]) -> list[tuple[str, str | int | float]]:
    """Return the comparisons of a range.

    Raises:
        UserError: for a sign or a bound that is none.
    """
    for sign, bound in wanted.items():
        if sign not in _RANGE:
            raise unknown(f"comparison in the filter on {field!r}", sign, _RANGE)
        if isinstance(bound, bool) or not isinstance(bound, (str, int, float)):
            raise UserError(f"cannot compare {field!r} with {bound!r}: give a number or a text")
    return list(wanted.items())


def _field(field: str, wanted: Any) -> tuple[str, list[Any]]:
    where = path(field)
    if wanted is None:
        return "json_extract(metadata, ?) IS NULL", [where]
    if isinstance(wanted, Mapping):
        test, values = _range(field, wanted)
    else:
        test, values = "each.value IN (SELECT value FROM json_each(?))", [json.dumps(values_of(field, wanted))]
    # json_each gives the elements of a list and, of anything plain, that one value
    return f"EXISTS (SELECT 1 FROM json_each(metadata, ?) AS each WHERE {test})", [where, *values]


def _range(field: str, wanted: Mapping[str, Any]) -> tuple[str, list[Any]]:
    tests, values = ["1"], []
    for sign, bound in bounds_of(field, wanted):
        # SQLite holds every text to be above every number
        kinds = "('text')" if isinstance(bound, str) else "('integer', 'real')"
        tests.append(f"each.type IN {kinds} AND each.value {sign} ?")
        values.append(bound)
    return " AND ".join(tests), values
