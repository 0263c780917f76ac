"""One writer at a time: a lock that the system lets go when its process ends, however it ends."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from diptych.core.errors import UserError


class WriterLock:
    """Held from the construction on. SQLite's lock on an empty file: it works alike on every system."""

    def __init__(self, folder: Path) -> None:
        self._sql = sqlite3.connect(folder / "writer.lock", isolation_level=None, timeout=0, check_same_thread=False)
        try:
            self._sql.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._sql.close()
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
            raise UserError(
                f"the index {folder} is open for writing elsewhere: close that one first, or open this read-only"
            ) from None

    def release(self) -> None:
        """Let another writer in."""
        self._sql.close()
