"""One consistent sight of an index on disk: its vectors, mapped into memory, and which of them are alive."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from diptych.search.catalog import Catalog, Facts
from diptych.search.vectors import VectorFile

_FILTERS_KEPT = 16


@dataclass(frozen=True, slots=True)
class View:
    """The vectors as of one commit, by slot; a slot whose item was removed is not alive.

    `filters` remembers which slots recent filters let through.
    """

    facts: Facts
    vectors: Float32[np.ndarray, "n d"]
    alive: Bool[np.ndarray, " n"]
    filters: dict[str, Bool[np.ndarray, " n"]] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog, folder: Path, dim: int, before: View | None) -> View:
        """Look at the state that the catalog's transaction sees, reusing an earlier view as far as it goes.

        Raises:
            FileNotFoundError: when the vectors were compacted away since the transaction began.
            UserError: when files are damaged.
        """
        facts = catalog.facts()
        if before is not None and before.facts.changes == facts.changes:
            return before
        vectors = VectorFile(folder, facts.generation, dim).rows(facts.slots)
        alive = np.zeros(facts.slots, dtype=np.bool_)
        if before is not None and _only_grew(before.facts, facts):
            alive[: before.facts.slots] = before.alive
            alive[before.facts.slots :] = True
        else:
            alive[catalog.slots({})] = True
        return cls(facts, vectors, alive)

    def allowed(self, catalog: Catalog, where: dict[str, Any]) -> Bool[np.ndarray, " n"]:
        """Return which slots hold an item that meets a filter.

        Raises:
            UserError: for a bad filter.
        """
        if not where:
            return self.alive
        name = repr(where)
        if name not in self.filters:
            mask = np.zeros(len(self.alive), dtype=np.bool_)
            mask[catalog.slots(where)] = True
            if len(self.filters) == _FILTERS_KEPT:
                self.filters.pop(next(iter(self.filters)))
            self.filters[name] = mask
        return self.filters[name]


def _only_grew(before: Facts, now: Facts) -> bool:
    return (before.generation, before.removals) == (now.generation, now.removals)
