"""Faults of the disk and of the files, told as one clear line."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diptych.core.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told(folder: Path, doing: str) -> Iterator[None]:
    """Turn errors of the file system and of SQLite into a UserError.

    Args:
        folder: the index at fault.
        doing: what was going on, as in "adding".

    Raises:
        UserError: that says what happened and what became of the data.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        raise UserError(_of_sqlite(error, folder, doing)) from error
    except OSError as error:
        full = error.errno in _FULL
        what = "the disk is full" if full else f"the system says {error.strerror or error}"
        raise UserError(_lost_nothing(folder, doing, what)) from error


def damaged(folder: Path, what: str) -> UserError:
    """Make the error for an index whose files are not as they were written."""
    return UserError(f"the index {folder} is damaged: {what}; restore the folder from a copy or index again")


def _of_sqlite(error: sqlite3.DatabaseError, folder: Path, doing: str) -> str:
    name = getattr(error, "sqlite_errorname", "")  # only errors of SQLite itself have one
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "no such table" in str(error):
        return str(damaged(folder, f"rows.sqlite cannot be read ({error})"))
    if name.startswith("SQLITE_BUSY"):
        return f"the index {folder} is busy: another process is compacting or recovering it; try again"
    full = name.startswith("SQLITE_FULL")
    return _lost_nothing(folder, doing, "the disk is full" if full else f"the database says {error}")


def _lost_nothing(folder: Path, doing: str, what: str) -> str:
    return f"{doing} the index {folder} failed: {what}; nothing was changed, all that was stored before is safe"
