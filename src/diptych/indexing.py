"""Indexing: pictures of a source go into an index, and an index knows the run that made its vectors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from diptych.core.errors import UserError
from diptych.data.source import Problem, Source
from diptych.predictor import Predictor
from diptych.search.index import Index
from diptych.search.opening import index_there, make_index, open_index, run_in

CHUNK = 512
"""Pictures that are stored, and so safe, together."""

_CONDITION = re.compile(r"^(?P<name>[^<>=!]+)(?P<sign>>=|<=|=|>|<)(?P<value>.*)$")


@dataclass(slots=True)
class Done:
    """What became of the pictures: stored, in the index already, unreadable."""

    added: int = 0
    known: int = 0
    skipped: list[Problem] = field(default_factory=list)


def open_for(predictor: Predictor, run: Path, address: str | Path) -> Index:
    """Open an index for writing, or make it.

    Args:
        predictor: what will make the vectors.
        run: its folder; remembered, so that `search` needs only the index.
        address: a folder, or the address of a server's collection or table.

    Raises:
        UserError: when the index was made by another model, or cannot be written.
    """
    if index_there(address):
        return open_index(address, model=predictor.identity)
    dim = predictor.embed_text("a").shape[1]
    return make_index(address, dim=dim, model=predictor.identity, run=str(run.resolve()))


def run_of(index: str | Path, run: Path | None = None) -> Path:
    """Return the run whose model made an index.

    Raises:
        UserError: when the index does not say, or the run is not there any more.
    """
    if run is not None:
        return run
    found = Path(run_in(index))
    if not found.is_dir():
        raise UserError(f"the run {found} that made this index is not there; say where it is now with --run")
    return found


def add_pictures(
    store: Index,
    predictor: Predictor,
    source: Source,
    rows: Int64[np.ndarray, " n"],
    *,
    named: str = "",
    update: bool = False,
    passed: Callable[[int], object] = int,
) -> Done:
    """Embed pictures and store them with their captions as text and every other column as metadata.

    Args:
        store: open for writing.
        predictor: of the same model.
        source: where the pictures are.
        rows: which of them.
        named: what the user called the source; kept, so that a page can show the pictures later.
        update: embed pictures anew whose key is known.
        passed: told how many more rows are dealt with.
    """
    done = Done()
    wanted = rows
    if not update:
        known = set(store.keys())
        wanted = np.array([row for row in rows.tolist() if source.row(row).key not in known], dtype=np.int64)
        done.known = len(rows) - len(wanted)
        passed(done.known)
    for piece, vectors in _chunks(predictor.embed_rows(source, wanted, skipped=done.skipped)):
        found = [source.row(row) for row in piece.tolist()]
        store.upsert(
            [row.key for row in found],
            vectors,
            metadata=[
                {**row.fields, "split": row.split, "_data": named, "_row": number}
                for row, number in zip(found, piece.tolist(), strict=True)
            ],
            texts=["\n".join(row.captions) or None for row in found],
        )
        done.added += len(found)
        passed(len(found))
    return done


def parse_where(conditions: Iterable[str]) -> dict[str, Any]:
    """Read conditions such as `split=test`, `label=dog,cat` (any of them) or `year>=2000`.

    Raises:
        UserError: for a word that is no condition.
    """
    where: dict[str, Any] = {}
    for condition in conditions:
        parts = _CONDITION.match(condition)
        if parts is None:
            raise UserError(f"--where takes COLUMN=VALUE or COLUMN>=NUMBER, not {condition!r}")
        name, sign, value = parts["name"].strip(), parts["sign"], parts["value"].strip()
        if sign == "=":
            where[name] = [form for word in value.split(",") for form in _forms(word.strip())]
        else:
            where.setdefault(name, {})[sign] = _forms(value)[-1]
    return where


def _forms(word: str) -> list[str | int | float | bool]:
    """Return a typed word as text and, where it reads as one, as a number or truth value."""
    try:
        value = json.loads(word)
    except json.JSONDecodeError:
        return [word]
    return [word, value] if isinstance(value, int | float | bool) else [word]


Piece = tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, "k d"]]


def _chunks(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join small pieces, so that fewer writes have to be forced to the disk."""
    waiting: list[Piece] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(len(rows) for rows, _ in waiting) >= CHUNK:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(pieces: list[Piece]) -> Piece:
    return np.concatenate([rows for rows, _ in pieces]), np.concatenate([vectors for _, vectors in pieces])
