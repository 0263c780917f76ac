"""Index: the one interface to stores of vectors with keys, metadata and nearest neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from jaxtyping import Float32
from numpy import ndarray

from diptych.core.errors import UserError
from diptych.search.unit import Vectors

_RANK = 60  # Cormack's constant: how far the first ranks stand out

Metadata = Mapping[str, Any]
"""Any JSON values by name."""

Where = Mapping[str, Any]
"""A filter on metadata; every condition must hold. An item whose value is a list meets one if an element does.

`{"split": "test"}` equals; `{"split": ["dev", "test"]}` any of; `{"year": {">=": 2000, "<": 2010}}` a range of
numbers or of texts; `{"licence": None}` missing or null.
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search; `score` is the cosine similarity, 1 for the same direction, if nothing else is said."""

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


def fuse(by_vector: Sequence[Hit], by_words: Sequence[Hit], *, k: int, weight: float) -> list[Hit]:
    """Put two rankings into one by the reciprocals of their ranks.

    Args:
        by_vector: best first.
        by_words: best first.
        k: how many to return.
        weight: of the words, in [0, 1]; the vectors have the rest.

    Returns:
        The best hits. A score is 1 for what is first in both rankings, and what is missing from one gets nothing
        from it; equal scores keep the order of the vectors.

    Raises:
        UserError: for another weight.

    Reference:
        Cormack, Clarke and Buettcher 2009, Reciprocal Rank Fusion (SIGIR).
    """
    if not 0 <= weight <= 1:
        raise UserError(f"the words cannot weigh {weight}: give a number from 0 (vectors alone) to 1 (words alone)")
    hits = {hit.key: hit for hit in (*by_vector, *by_words)}
    scores = dict.fromkeys(hits, 0.0)
    for ranking, share in ((by_vector, 1 - weight), (by_words, weight)):
        for place, hit in enumerate(ranking, start=1):
            scores[hit.key] += share * (_RANK + 1) / (_RANK + place)
    best = sorted((key for key in scores if scores[key] > 0), key=lambda key: -scores[key])[:k]
    return [replace(hits[key], score=scores[key]) for key in best]


def at_least_one(k: int) -> None:
    """Refuse to look for nothing.

    Raises:
        UserError: for k below 1.
    """
    if k < 1:
        raise UserError(f"cannot look for the {k} nearest: give 1 or more")


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
    def matching(self, text: str, *, k: int = 10, where: Where | None = None) -> list[Hit]:
        """Find the items whose text holds words of another text, whatever their vectors.

        Args:
            text: its words, in any order; one of them is enough, more of them and rarer ones count more.
            k: how many to find.
            where: only items that meet this filter.

        Returns:
            Hits, best first; the score is the store's measure of words (BM25 in a folder), above 0, without a unit.

        Raises:
            UserError: for a text without words, k below 1, a bad filter, a store that cannot.
        """

    def hybrid(
        self,
        vector: Vectors,
        text: str,
        *,
        k: int = 10,
        where: Where | None = None,
        weight: float = 0.5,
        depth: int = 100,
    ) -> list[Hit]:
        """Find items by a vector and by the words of a text at once.

        Args:
            vector: the query, usually what the model makes of the text.
            text: its words are looked for in the texts of the items.
            k: how many to find.
            where: only items that meet this filter.
            weight: of the words, in [0, 1].
            depth: how many of each ranking are weighed against each other.

        Returns:
            Hits, best first; the score tells of both ranks and is 1 for the first of both (see `fuse`).

        Raises:
            UserError: as for `search` and `matching`.
        """
        depth = max(k, depth)
        near = self.search(vector, k=depth, where=where)[0]
        return fuse(near, self.matching(text, k=depth, where=where), k=k, weight=weight)

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
