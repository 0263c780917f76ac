"""ServedIndex: what indexes in a database server have in common, whichever server it is.

The server keeps the items and proposes the nearest; their scores are computed here from the stored vectors, as in a
folder, so that the same items give the same hits in the same order everywhere.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from diptych.core.errors import UserError, unknown
from diptych.search.exact import settle
from diptych.search.index import Hit, Index, Item, Metadata, Where, at_least_one
from diptych.search.rows import rows_of
from diptych.search.unit import Vectors, unit

Row = tuple[str, str, str | None, Float32[np.ndarray, " d"]]
"""Key, metadata as JSON, text, unit vector."""

_SPARE = 16  # more than k are fetched: the server rounds otherwise, and orders equal scores as it likes


@dataclass(frozen=True, slots=True)
class Facts:
    """What never changes about an index: the length of the vectors, the model that makes them, and its run."""

    dim: int
    model: str
    run: str


@dataclass(frozen=True, slots=True)
class Found:
    """An item as the server keeps it; `number` rises with every insertion."""

    number: int
    item: Item


class ServedIndex(Index):
    """An index in a server; several clients may read and write it at once.

    Args:
        address: as the user wrote it, without a password; for messages.
        facts: what never changes.
        read_only: refuse to write.
    """

    def __init__(self, address: str, facts: Facts, *, read_only: bool) -> None:
        self.address, self.facts, self._read_only = address, facts, read_only

    @property
    def dim(self) -> int:
        """Return the length of each vector."""
        return self.facts.dim

    @property
    def model(self) -> str:
        """Return the identity of the model that makes the vectors."""
        return self.facts.model

    def add(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metadata: Sequence[Metadata] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Store new items; see `Index.add`."""
        rows = self._rows(keys, vectors, metadata, texts)
        known = self._known(keys)
        if known:
            more = f" (and {len(known) - 1} more)" if len(known) > 1 else ""
            raise UserError(f"the key {known[0]!r}{more} is already in the index: use upsert to replace it")
        self._write(rows, replace=False)

    def upsert(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metadata: Sequence[Metadata] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Store items, replacing whole those whose keys are known; see `Index.upsert`."""
        self._write(self._rows(keys, vectors, metadata, texts), replace=True)

    def delete(self, keys: Sequence[str]) -> int:
        """Remove items; return how many of the keys were there."""
        self._need_write()
        return self._remove(list(dict.fromkeys(keys)))

    def search(
        self, vectors: Vectors, *, k: int = 10, where: Where | None = None, exact: bool = False
    ) -> list[list[Hit]]:
        """Find the nearest items of each query; see `Index.search`."""
        at_least_one(k)
        query = unit(vectors, dim=self.dim)
        found = self._near(query, count=k + _SPARE, where=dict(where or {}), exact=exact)
        if where and not any(found):
            self._refuse_unknown(where)
        return [_best(one, some, k=k) for one, some in zip(query, found, strict=True)]

    def matching(self, text: str, *, k: int = 10, where: Where | None = None) -> list[Hit]:
        """Find the items whose text holds words of another text; see `Index.matching`."""
        at_least_one(k)
        found = self._with_words(text, count=k, where=dict(where or {}))
        return [Hit(one.item.key, score, one.item.metadata, one.item.text) for one, score in found]

    def get(self, keys: Sequence[str]) -> list[Item]:
        """Return the items of these keys, in their order; see `Index.get`."""
        there = {one.item.key: one.item for one in self._items(list(dict.fromkeys(keys)))}
        missing = [key for key in keys if key not in there]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(f"the key {missing[0]!r}{more} is not in the index {self.address}")
        return [there[key] for key in keys]

    def count(self, where: Where | None = None) -> int:
        """Count the items, or those that meet a filter."""
        count = self._count(dict(where or {}))
        if where and count == 0:
            self._refuse_unknown(where)
        return count

    def keys(self, where: Where | None = None) -> list[str]:
        """Return the keys, or those of the items that meet a filter, in the order of insertion."""
        return self._keys(dict(where or {}))

    @abstractmethod
    def _write(self, rows: list[Row], *, replace: bool) -> None:
        """Store rows; with `replace` those whose keys are known take the place of the old ones."""

    @abstractmethod
    def _remove(self, keys: list[str]) -> int:
        """Remove items; return how many were there."""

    @abstractmethod
    def _near(
        self, query: Float32[np.ndarray, "q d"], *, count: int, where: dict[str, Any], exact: bool
    ) -> list[list[Found]]:
        """Return about the nearest of each query, with their vectors."""

    @abstractmethod
    def _with_words(self, text: str, *, count: int, where: dict[str, Any]) -> list[tuple[Found, float]]:
        """Return items and scores, best first."""

    @abstractmethod
    def _items(self, keys: list[str]) -> list[Found]:
        """Return those of the items that are there, in any order."""

    @abstractmethod
    def _known(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that are there."""

    @abstractmethod
    def _count(self, where: dict[str, Any]) -> int:
        """Count."""

    @abstractmethod
    def _keys(self, where: dict[str, Any]) -> list[str]:
        """Return keys in the order of insertion."""

    @abstractmethod
    def _fields(self, field: str) -> list[str] | None:
        """Return None when some item has a field in its metadata, else fields that items do have."""

    def _rows(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        metadata: Sequence[Metadata] | None,
        texts: Sequence[str | None] | None,
    ) -> list[Row]:
        """Check everything before anything is sent."""
        self._need_write()
        parts = rows_of(keys, metadata, texts)
        vectors = vectors[None] if vectors.ndim == 1 else vectors
        if len(vectors) != len(keys):
            raise UserError(f"{len(vectors)} vectors were given for {len(keys)} keys: give one for each")
        if len(keys) == 0:
            return []
        units = unit(vectors, dim=self.dim, names=keys)
        return [(key, note, text, vector) for (key, note, text), vector in zip(parts, units, strict=True)]

    def _need_write(self) -> None:
        if self._read_only:
            raise UserError(f"the index {self.address} is open read-only: open it without read_only to change it")

    def _refuse_unknown(self, where: Mapping[str, Any]) -> None:
        for field, wanted in where.items():
            others = None if wanted is None else self._fields(field)
            if others:
                raise unknown("field of the metadata", field, others)


def item(key: str, note: str | Mapping[str, Any], text: str | None, vector: Any) -> Item:
    """Make an item of what a server returns."""
    metadata = json.loads(note) if isinstance(note, str) else dict(note)
    return Item(key, np.asarray(vector, dtype=np.float32), metadata, text)


@contextmanager
def closed_by_errors(connection: Any) -> Iterator[None]:
    """Close a connection when the block raises, and leave it open otherwise."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def checked(facts: Facts, address: str, model: str | None) -> Facts:
    """Return the facts of an index that is opened with a model in mind.

    Raises:
        UserError: when another model made it.
    """
    if model is not None and model != facts.model:
        raise UserError(
            f"the index {address} holds vectors of the model {facts.model!r}, which cannot be compared with those "
            f"of {model!r}: use that model, or index again with this one"
        )
    return facts


def _best(query: Float32[np.ndarray, " d"], found: list[Found], *, k: int) -> list[Hit]:
    """Score as a folder does, equal scores in the order of insertion."""
    found = sorted(found, key=lambda one: one.number)
    if not found:
        return []
    vectors, zeros = np.stack([one.item.vector for one in found]), np.zeros(len(found), np.int64)
    _, places, scores = settle(query[None], vectors, zeros, np.arange(len(found)), k=k)
    items = [found[place].item for place in places.tolist()]
    return [Hit(one.key, score, one.metadata, one.text) for one, score in zip(items, scores.tolist(), strict=True)]
