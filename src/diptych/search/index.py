"""Index: the one interface to stores of vectors with keys, metadata and nearest neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from jaxtyping import Float32
from numpy import ndarray

from diptych.search.unit import Vectors

Metadata = Mapping[str, Any]
"""Any JSON values by name."""

Where = Mapping[str, Any]
"""A filter on metadata; every condition must hold. An item whose value is a list meets one if an element does.

`{"split": "test"}` equals; `{"split": ["dev", "test"]}` any of; `{"year": {">=": 2000, "<": 2010}}` a range of
numbers or of texts; `{"licence": None}` missing or null.
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search; `score` is the cosine similarity, 1 for the same direction."""

    key: str
    score: float
    metadata: dict[str, Any]
    text: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """One stored item; its vector has length 1."""

    key: str
    vector: Float32[ndarray, " d"]
    metadata: dict[str, Any]
    text: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How an index searches: "exact", or "approximate" with the recall measured on a sample of its own vectors."""

    kind: str
    vectors: int
    recall: float | None
    note: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.kind} search over {self.vectors:,} vectors: {self.note}"


class Index(ABC):
    """Vectors of one model, each with a unique key, metadata and a text; found by cosine similarity.

    A write that returned is safe on disk, all of it; one that raised or was cut off left nothing.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """Return the length of each vector."""

    @property
    @abstractmethod
    def model(self) -> str:
        """Return the identity of the model that makes the vectors."""

    @abstractmethod
    def add(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metadata: Sequence[Metadata] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Store new items.

        Args:
            keys: one name each, not in the index yet.
            vectors: one row per key, of any length above 0; stored with length 1, in float32.
            metadata: what `where` can filter by, one mapping per key.
            texts: one text or None per key.

        Raises:
            UserError: for a known key, a key given twice, a wrong dimension, a vector that is not finite or is all
                zeros, metadata that is not JSON, a full disk.
        """

    @abstractmethod
    def upsert(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metadata: Sequence[Metadata] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Store items, replacing whole those whose keys are known; the others and the errors are as for `add`.

        A replaced item counts as inserted now.
        """

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> int:
        """Remove items; return how many of the keys were there."""

    @abstractmethod
    def search(
        self, vectors: Vectors, *, k: int = 10, where: Where | None = None, exact: bool = False
    ) -> list[list[Hit]]:
        """Find the nearest items of each query.

        Args:
            vectors: queries, one row each, or a single vector; of any length above 0.
            k: how many to find for each.
            where: only items that meet this filter are looked at, so k of them come back if there are k.
            exact: do not use an approximate plan.

        Returns:
            For each query its hits, best first, equal scores in the order of insertion. A single vector is one query.

        Raises:
            UserError: for a wrong dimension, a query that is not finite or is all zeros, k below 1, a bad filter.
        """

    @abstractmethod
    def get(self, keys: Sequence[str]) -> list[Item]:
        """Return the items of these keys, in their order.

        Raises:
            UserError: for a key that is not in the index.
        """

    @abstractmethod
    def count(self, where: Where | None = None) -> int:
        """Count the items, or those that meet a filter."""

    @abstractmethod
    def keys(self, where: Where | None = None) -> list[str]:
        """Return the keys, or those of the items that meet a filter, in the order of insertion."""

    @abstractmethod
    def optimize(self) -> Plan:
        """Prepare for fast search after many writes; return how it will be done."""

    @abstractmethod
    def plan(self) -> Plan:
        """Say how it searches now."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the store; the index cannot be used any more."""

    def __len__(self) -> int:
        """Count the items."""
        return self.count()

    def __enter__(self) -> Self:
        """Close at the end of a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
