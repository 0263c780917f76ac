"""Sides: which pictures are of the source domains and which of the target, and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import UserError
from diptych.data.domains import Domains
from diptych.data.source import Source


@dataclass(frozen=True, slots=True)
class Sides:
    """The rows of the source domains and of the target; the target is empty where there is none."""

    source: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " m"]

    @classmethod
    def of(cls, data: Source, sources: Sequence[str], targets: Sequence[str], *, column: str = "") -> Sides:
        """Part the rows.

        Args:
            data: all of them.
            sources: domains; empty: all but the targets.
            targets: domains; empty: none.
            column: that names the domain; empty: guessed.

        Raises:
            UserError: for a domain that is not there or stands on both sides.
        """
        if not sources and not targets:
            return cls(np.arange(len(data), dtype=np.int64), np.zeros(0, dtype=np.int64))
        domains = Domains.read(data, column)
        known = ", ".join(domains.names)
        if not domains.names:
            raise UserError(f"{data.name} has no domains; name their column with --set domain=COLUMN")
        both = sorted({*sources} & {*targets})
        if both:
            raise UserError(f"the domain {both[0]!r} is a source and a target; give others (there are: {known})")
        rest = tuple(name for name in domains.names if name not in targets)
        return cls(domains.among(sources or rest), domains.among(targets))

    def labelled(self, labels: str) -> Int64[np.ndarray, " k"]:
        """Return the rows whose labels may be read in training."""
        parts = {"source": (self.source,), "target": (self.target,), "both": (self.source, self.target)}
        return np.sort(np.concatenate(parts[labels]))


def label_of(source: Source, row: int) -> str | None:
    """Return the class of a row, None where it has none."""
    name = source.row(row).fields.get("label")
    return None if name in (None, "") else str(name)
