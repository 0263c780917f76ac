"""Filters on metadata and words of texts, in PostgreSQL's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diptych.search.where import bounds_of, path, values_of
from diptych.search.words import terms_of

# the elements of a list and, of anything plain, that one value
_EACH = (
    "EXISTS (SELECT 1 FROM jsonb_array_elements(CASE WHEN jsonb_typeof(metadata -> %s) = 'array' "
    "THEN metadata -> %s ELSE jsonb_build_array(metadata -> %s) END) AS each WHERE {test})"
)
_KINDS = {str: "string", int: "number", float: "number"}


def condition(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Translate a filter (see `diptych.search.index.Where`) for a table whose `metadata` column is jsonb.

    Returns:
        An SQL expression and its parameters.

    Raises:
        UserError: for a condition that is not one.
    """
    parts, values = ["true"], []
    for field, wanted in where.items():
        path(field)
        if wanted is None:
            parts.append("coalesce(metadata -> %s, 'null') = 'null'")
            values.append(field)
            continue
        test, its_values = _range(field, wanted) if isinstance(wanted, Mapping) else _any(field, wanted)
        parts.append(_EACH.format(test=test))
        values += [field, field, field, *its_values]
    return " AND ".join(parts), values


def query_of(text: str) -> str:
    """Write a query for `to_tsquery`: any of the words; the characters of a Chinese run stand side by side, in pairs.

    Raises:
        UserError: when there is no word in the text.
    """
    return " | ".join(f"({' <-> '.join(term.split())})" for term in terms_of(text))


def _any(field: str, wanted: Any) -> tuple[str, list[Any]]:
    return "each = ANY(%s::jsonb[])", [[json.dumps(value) for value in values_of(field, wanted)]]


def _range(field: str, wanted: Mapping[str, Any]) -> tuple[str, list[Any]]:
    tests, values = ["true"], []
    for sign, bound in bounds_of(field, wanted):
        kind = _KINDS[type(bound)]
        plain = "(each #>> '{{}}')" + (' COLLATE "C"' if kind == "string" else "::numeric")
        # a CASE, since conditions may be tried in any order and no text can be read as a number
        tests.append(f"CASE WHEN jsonb_typeof(each) = '{kind}' THEN {plain} {sign} %s ELSE false END")
        values.append(bound)
    return " AND ".join(tests), values
