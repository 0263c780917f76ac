"""Selected: learn only from the rows, or the captions of a row, whose column has certain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diptych.core.errors import UserError, unknown
from diptych.data.source import Row, Source
from diptych.data.view import View


@dataclass(frozen=True, slots=True)
class Rule:
    """What a column must be, or must not be.

    Args:
        column: whose values decide.
        values: in lower case.
        wanted: whether these values are kept, or left out.
    """

    column: str
    values: tuple[str, ...]
    wanted: bool

    @classmethod
    def parse(cls, text: str, *, wanted: bool) -> Rule:
        """Read `column=value` or `column=value,value`.

        Raises:
            UserError: for anything else.
        """
        column, _, values = text.partition("=")
        found = tuple(value.strip().lower() for value in values.split(",") if value.strip())
        if not column.strip() or not found:
            name = "only" if wanted else "exclude"
            raise UserError(f"{name}={text!r} is no rule; give column=value or column=value,value as in source=human")
        return cls(column.strip(), found, wanted)

    def keeps(self, value: Any) -> bool:
        """Say whether a value is one to learn from; a missing one is none of the values."""
        return (str(value).lower() in self.values) == self.wanted

    def __str__(self) -> str:
        return f"{self.column} {'' if self.wanted else 'not '}{' or '.join(self.values)}"


class Selected(View):
    """A source without the training rows that the rules leave out; what is scored, dev and test, stays whole.

    A column that differs between the lines about one picture is a list: each line's captions stay or go by its own
    value. Where captions cannot be given to their lines, because some lines have more than others, the picture stays
    with all of them when every line may.

    Args:
        source: what is chosen from.
        rules: all of them must hold.

    Raises:
        UserError: when no training row has a rule's column, or none is left.
    """

    def __init__(self, source: Source, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        splits = source.splits()
        kept, seen = [], dict.fromkeys((rule.column for rule in rules), 0)
        columns: set[str] = set()
        for place in range(len(source)):
            if splits[place] != 0:
                kept.append(place)
                continue
            row = source.row(place)
            columns |= row.fields.keys()
            for name in seen:
                seen[name] += name in row.fields
            if (not row.captions and self._keeps(row.fields)) or self._captions(row):
                kept.append(place)
        _require(source, seen, columns, left=any(splits[place] == 0 for place in kept), rules=self.rules)
        told = ", ".join(str(rule) for rule in rules)
        numbers = np.array(kept, dtype=np.int64)
        how = f"training on {int((splits[numbers] == 0).sum()):,} of {int((splits == 0).sum()):,} pictures ({told})"
        super().__init__(source, how=how, kept=numbers)

    def change(self, row: Row, place: int) -> Row:
        """Leave out captions of a training row."""
        return replace(row, captions=self._captions(row)) if row.split == "train" else row

    def _captions(self, row: Row) -> tuple[str, ...]:
        """Return the captions that stay."""
        kept = np.ones(len(row.captions), dtype=np.bool_)
        for rule in self.rules:
            value = row.fields.get(rule.column)
            good = [rule.keeps(one) for one in value] if isinstance(value, list) and value else [rule.keeps(value)]
            each, left = divmod(len(kept), len(good))
            kept &= np.repeat(good, each) if left == 0 else all(good)
        return tuple(text for text, stays in zip(row.captions, kept, strict=True) if stays)

    def _keeps(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a picture without captions, which has a label perhaps, stays."""
        values = [(rule, fields.get(rule.column)) for rule in self.rules]
        return all(any(rule.keeps(one) for one in (v if isinstance(v, list) else [v])) for rule, v in values)


def _require(source: Source, seen: Mapping[str, int], columns: set[str], *, left: bool, rules: Sequence[Rule]) -> None:
    for name, count in seen.items():
        if count == 0:
            raise unknown("column", name, columns)
    if not left:
        told = ", ".join(str(rule) for rule in rules)
        raise UserError(f"nothing is left to learn from in {source.name}: no training row has {told}")
