"""Filters on metadata, as Milvus's expressions over a JSON field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from diptych.search.where import bounds_of, path, values_of

NOTHING = "number < 0"


def condition(where: Mapping[str, Any]) -> str:
    """Translate a filter (see `diptych.search.index.Where`) for a collection whose `metadata` field is JSON.

    A range is met by plain values only: Milvus does not look into lists for it.

    Returns:
        An expression; empty for no filter.

    Raises:
        UserError: for a condition that is not one.
    """
    return " and ".join(f"({_field(field, wanted)})" for field, wanted in where.items())


def sent(key: str) -> str:
    """Write a key so that pymilvus, which puts keys into expressions as they are, can page through them."""
    return key.replace("%", "%25").replace("\\", "%5C").replace('"', "%22").replace("'", "%27")


def kept(key: str) -> str:
    """Read what `sent` wrote."""
    return key.replace("%27", "'").replace("%22", '"').replace("%5C", "\\").replace("%25", "%")


def any_key(keys: Sequence[str]) -> str:
    """Write a filter for items of some keys."""
    return f"key in {json.dumps([sent(key) for key in keys], ensure_ascii=False)}"


def _field(field: str, wanted: Any) -> str:
    path(field)
    name = f"metadata[{json.dumps(field, ensure_ascii=False)}]"
    if wanted is None:
        return f"{name} is null"
    if isinstance(wanted, Mapping):
        return " and ".join(f"{name} {sign} {_said(bound)}" for sign, bound in bounds_of(field, wanted)) or NOTHING
    values = [_said(value) for value in values_of(field, wanted)]
    return " or ".join(f"{name} == {value} or json_contains({name}, {value})" for value in values) or NOTHING


def _said(value: str | int | float) -> str:
    return json.dumps(value, ensure_ascii=False)
