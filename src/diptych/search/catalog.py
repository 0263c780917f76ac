"""The SQLite side of an index on disk: which key owns which row of the vector file, its metadata and its text.

A vector exists from the moment that the transaction which names its row is committed, and not before.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import unknown
from diptych.search.where import condition, path
from diptych.search.words import TABLE, spaced

_TABLES = f"""
{TABLE};
CREATE TABLE rows (slot INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL, text TEXT);
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO facts VALUES ('generation', 0), ('slots', 0), ('removals', 0), ('changes', 0), ('graph', NULL),
    ('codes', NULL);
"""

Row = tuple[int, str, str, str | None]
"""Slot, key, metadata as JSON, text."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reader must know to read: which vector file, how many rows of it, and whether anything changed.

    `slots` rows of the file of this `generation` were given out; `removals` counts rows that lost their item;
    `changes` counts commits; `graph` tells of the approximate index and `codes` of the vectors in 8 bits, as JSON.
    """

    generation: int
    slots: int
    removals: int
    changes: int
    graph: str | None
    codes: str | None = None


class Catalog:
    """One connection to `rows.sqlite`; the caller sees to it that one thread uses it at a time."""

    def __init__(self, file: Path, *, read_only: bool, create: bool = False) -> None:
        mode = "ro" if read_only else "rwc" if create else "rw"
        if read_only and not os.access(file.parent, os.W_OK) and not file.with_name(f"{file.name}-wal").exists():
            mode += "&immutable=1"  # SQLite would make its files for sharing, which a read-only medium forbids
        self._sql = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10,
        )
        if create:
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.executescript(f"BEGIN; {_TABLES} COMMIT;")
        if not read_only:
            self._sql.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the connection."""
        self._sql.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the table throughout the block, whatever is written meanwhile."""
        self._sql.execute("BEGIN")
        try:
            yield
        finally:
            self._sql.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Commit everything in the block at its end, safe on disk, or nothing if it raises."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("UPDATE facts SET value = value + 1 WHERE name = 'changes'")
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise

    def facts(self) -> Facts:
        """Read the facts."""
        return Facts(**dict(self._sql.execute("SELECT name, value FROM facts")))

    def set_facts(self, values: dict[str, int | str | None]) -> None:
        """Change facts, inside `writing`."""
        self._sql.executemany("UPDATE facts SET value = ? WHERE name = ?", [(v, name) for name, v in values.items()])

    def insert(self, rows: Sequence[Row]) -> None:
        """Give slots to new keys."""
        self._sql.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        self._add_words((slot, text) for slot, _, _, text in rows)

    def remove(self, keys: Sequence[str]) -> int:
        """Take the keys out that are there; return how many were."""
        asked = "SELECT slot FROM rows WHERE key IN (SELECT value FROM json_each(?))"
        slots = self._sql.execute(asked, [json.dumps(keys)]).fetchall()
        self._sql.executemany("DELETE FROM words WHERE rowid = ?", slots)
        self._sql.executemany("DELETE FROM rows WHERE slot = ?", slots)
        if slots:
            self._sql.execute("UPDATE facts SET value = value + ? WHERE name = 'removals'", [len(slots)])
        return len(slots)

    def known(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that are there."""
        asked = "SELECT key FROM rows WHERE key IN (SELECT value FROM json_each(?)) ORDER BY slot"
        return [key for (key,) in self._sql.execute(asked, [json.dumps(keys)])]

    def by_slot(self, slots: Sequence[int]) -> list[Row]:
        """Return the rows of some slots, in any order."""
        asked = "SELECT slot, key, metadata, text FROM rows WHERE slot IN (SELECT value FROM json_each(?))"
        return self._sql.execute(asked, [json.dumps(slots)]).fetchall()

    def by_key(self, keys: Sequence[str]) -> list[Row]:
        """Return the rows of some keys, in any order."""
        asked = "SELECT slot, key, metadata, text FROM rows WHERE key IN (SELECT value FROM json_each(?))"
        return self._sql.execute(asked, [json.dumps(keys)]).fetchall()

    def has_words(self) -> bool:
        """Say whether texts can be looked through by their words; indexes of format 1 cannot."""
        return self._sql.execute("SELECT 1 FROM sqlite_master WHERE name = 'words'").fetchone() is not None

    def index_words(self) -> None:
        """Make the table of words anew from the texts, and what else format 1 had not; inside `writing`."""
        self._sql.execute("INSERT OR IGNORE INTO facts VALUES ('codes', NULL)")
        self._sql.execute(TABLE)
        self._sql.execute("DELETE FROM words")
        self._add_words(self._sql.execute("SELECT slot, text FROM rows").fetchall())

    def matching(self, query: str, where: dict[str, Any], *, k: int) -> list[tuple[int, float]]:
        """Return the slots of the texts that match best and their BM25 scores, best first."""
        test, values = condition(where)
        asked = (
            "SELECT slot, -bm25(words) FROM words JOIN rows ON slot = words.rowid "
            f"WHERE words MATCH ? AND {test} ORDER BY bm25(words), slot LIMIT ?"
        )
        return self._sql.execute(asked, [query, *values, k]).fetchall()

    def keys(self, where: dict[str, Any]) -> list[str]:
        """Return the keys of the rows that meet a filter, in the order of their slots."""
        test, values = condition(where)
        return [key for (key,) in self._sql.execute(f"SELECT key FROM rows WHERE {test} ORDER BY slot", values)]

    def slots(self, where: dict[str, Any]) -> Int64[np.ndarray, " s"]:
        """Return the slots of the rows that meet a filter, rising.

        Raises:
            UserError: when nothing does and no row even has one of the fields.
        """
        test, values = condition(where)
        found = self._sql.execute(f"SELECT slot FROM rows WHERE {test} ORDER BY slot", values)
        slots = np.fromiter((slot for (slot,) in found), dtype=np.int64)
        if len(slots) == 0:
            self._refuse_unknown(where)
        return slots

    def renumber(self) -> None:
        """Give the slots 0, 1, 2 ... to the rows in their order."""
        pairs = enumerate(slot for (slot,) in self._sql.execute("SELECT slot FROM rows ORDER BY slot").fetchall())
        moves = [(new, old) for new, old in pairs if new != old]
        self._sql.executemany("UPDATE rows SET slot = ? WHERE slot = ?", moves)
        self.index_words()

    def shrink(self) -> None:
        """Give the space of removed rows back to the system."""
        self._sql.execute("VACUUM")
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _add_words(self, texts: Iterable[tuple[int, str | None]]) -> None:
        some = ((slot, spaced(text)) for slot, text in texts if text is not None)
        self._sql.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", some)

    def _refuse_unknown(self, where: dict[str, Any]) -> None:
        for field, wanted in where.items():
            has = "SELECT 1 FROM rows WHERE json_type(metadata, ?) IS NOT NULL LIMIT 1"
            if wanted is not None and self._sql.execute(has, [path(field)]).fetchone() is None:
                names = self._sql.execute("SELECT DISTINCT each.key FROM rows, json_each(metadata) AS each")
                known = [name for (name,) in names]
                if known:
                    raise unknown("field of the metadata", field, known)
