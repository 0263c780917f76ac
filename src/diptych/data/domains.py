"""Domains: which of several kinds of pictures (a style, a camera, a place) each row of a source is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import UserError, nearest, unknown
from diptych.data.source import Row, Source

USUAL = ("domain", "style")
"""Columns that name a domain; failing these, it is the first of several nested folders."""


@dataclass(frozen=True, slots=True)
class Domains:
    """The domains of a source.

    Args:
        names: sorted.
        place: of each row's domain among the names; -1 where it has none.
    """

    names: tuple[str, ...]
    place: Int64[np.ndarray, " n"]

    @classmethod
    def read(cls, source: Source, column: str = "") -> Domains:
        """Look at every row.

        Args:
            source: the data.
            column: that names the domain; empty: guessed.

        Raises:
            UserError: when there is no such column.
        """
        found = [_domain(source.row(index), column) for index in range(len(source))]
        names = tuple(sorted({name for name in found if name is not None}))
        if column and not names:
            known = source.row(0).fields
            raise UserError(f"there is no column {column!r}{nearest(column, known)} (there are: {', '.join(known)})")
        places = {name: place for place, name in enumerate(names)}
        return cls(names, np.array([-1 if name is None else places[name] for name in found], dtype=np.int64))

    def among(self, names: Sequence[str]) -> Int64[np.ndarray, " k"]:
        """Return the rows of some domains.

        Raises:
            UserError: for a domain that no row has.
        """
        for name in names:
            if name not in self.names:
                raise unknown("domain", name, self.names)
        wanted = [place for place, name in enumerate(self.names) if name in names]
        return np.flatnonzero(np.isin(self.place, wanted)).astype(np.int64)


def _domain(row: Row, column: str) -> str | None:
    for name in (column,) if column else USUAL:
        if row.fields.get(name) not in (None, ""):
            return str(row.fields[name])
    folder = str(row.fields.get("folder", ""))
    return folder.partition("/")[0] if "/" in folder and not column else None
