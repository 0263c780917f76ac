"""MilvusIndex: an index as a collection of a Milvus server or cluster, or of milvus-lite, by the same client.

Milvus has no transactions: `add` and `upsert` send what fits in one message at a time, each whole or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from jaxtyping import Float32

from diptych.core.errors import UserError
from diptych.search.index import Plan
from diptych.search.milvus_server import (
    LONGEST_TEXT,
    OURS,
    SECONDS,
    add_index,
    connect,
    exact_indexes,
    said,
    schema,
    told,
)
from diptych.search.milvus_where import any_key, condition, kept, sent
from diptych.search.place import Place
from diptych.search.served import Facts, Found, Row, ServedIndex, checked, closed_by_errors, item
from diptych.search.words import spaced, terms_of

_MOST = 16_384  # results of one query at most
_MESSAGE = 16 << 20  # bytes of vectors in one message; 64 MiB are allowed
_FIELDS = ["number", "key", "metadata", "text", "vector"]
_BREADTHS = (64, 128, 256, 512)


class MilvusIndex(ServedIndex):
    """An index in a collection; make one by `create` or `open`. Threads may share it."""

    def __init__(self, place: Place, facts: Facts, client: Any, *, read_only: bool) -> None:
        super().__init__(place.shown, facts, read_only=read_only)
        self._place, self._client, self._name = place, client, place.name

    @classmethod
    def create(cls, place: Place, *, dim: int, model: str, run: str) -> MilvusIndex:
        """Make the collection.

        Raises:
            UserError: when it is there already, or the server cannot be reached.
        """
        client = connect(place)
        with closed_by_errors(client), told(place):
            if client.has_collection(place.name, timeout=SECONDS):
                raise UserError(f"{place.shown} already holds a collection: open it, or choose another name")
            facts = {"dim": str(dim), "model": model, "run": run, "breadth": "0", "recall": "0"}
            client.create_collection(
                place.name,
                schema=schema(client, dim),
                index_params=exact_indexes(client),
                consistency_level="Strong",
                properties={OURS + name: value for name, value in facts.items()},
                timeout=SECONDS,
            )
        return cls(place, Facts(dim, model, run), client, read_only=False)

    @classmethod
    def open(cls, place: Place, *, model: str | None, read_only: bool) -> MilvusIndex:
        """Open a collection that is there.

        Raises:
            UserError: when there is none, it is not an index, another model made it, or the server cannot be reached.
        """
        client = connect(place)
        with closed_by_errors(client), told(place):
            if not client.has_collection(place.name, timeout=SECONDS):
                raise UserError(f"the index {place.shown} is not there; make one with `diptych index`")
            notes = said(client, place)
            client.load_collection(place.name, timeout=SECONDS)
            facts = checked(Facts(int(notes["dim"]), notes["model"], notes["run"]), place.shown, model)
            return cls(place, facts, client, read_only=read_only)

    @staticmethod
    def there(place: Place) -> bool:
        """Say whether there is such a collection."""
        with closing(connect(place)) as client, told(place):
            return bool(client.has_collection(place.name, timeout=SECONDS))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def plan(self) -> Plan:
        """Say how it searches now."""
        with told(self._place):
            notes = said(self._client, self._place)
        if notes["breadth"] == "0":
            return Plan("exact", self.count(), None, "the server compares every vector")
        recall = float(notes["recall"])
        return Plan("approximate", self.count(), recall, f"the server's graph finds {recall:.1%} of the nearest")

    def optimize(
        self, *, approximate_from: int = 1_000_000, recall: float = 0.99, sample: int = 100, k: int = 10
    ) -> Plan:
        """Let the server make a graph (HNSW) where comparing everything takes too long; see `FolderIndex.optimize`.

        Args:
            approximate_from: number of items from which on search is approximate.
            recall: share of the true k nearest that must be found, or search stays exact.
            sample: how many of the items to measure it with.
            k: how many nearest to measure it with.
        """
        self._need_write()
        if self.plan().kind == "approximate":
            self._set_index(graph=False)
        if self.count() < approximate_from:
            return self.plan()
        with told(self._place):
            some = self._client.query(self._name, filter="", output_fields=["vector"], limit=sample, timeout=SECONDS)
        query = np.array([one["vector"] for one in some], dtype=np.float32)
        truth = [{hit.key for hit in hits} for hits in self.search(query, k=k)]
        self._set_index(graph=True)
        reached = 0.0
        for breadth in _BREADTHS:
            self._note(breadth, reached)
            found = self.search(query, k=k)
            reached = float(np.mean([len(t & {h.key for h in f}) / len(t) for t, f in zip(truth, found, strict=True)]))
            self._note(breadth, reached)
            if reached >= recall:
                return self.plan()
        self._set_index(graph=False)
        return Plan("exact", self.count(), reached, f"approximate search would find only {reached:.1%}")

    def _set_index(self, *, graph: bool) -> None:
        with told(self._place):
            self._client.release_collection(self._name)
            self._client.drop_index(self._name, "vector")
            params = self._client.prepare_index_params()
            add_index(params, graph=graph)
            self._client.create_index(self._name, params)
            self._client.load_collection(self._name)
        self._note(0, 0.0)

    def _note(self, breadth: int, recall: float) -> None:
        noted = {OURS + "breadth": str(breadth), OURS + "recall": str(recall)}
        with told(self._place):
            self._client.alter_collection_properties(self._name, noted, timeout=SECONDS)

    def _write(self, rows: list[Row], *, replace: bool) -> None:
        numbers = time.time_ns()  # rises, and two clients' insertions fall into place by when they happened
        items = [self._sent(number, row) for number, row in enumerate(rows, start=numbers)]
        some = max(1, _MESSAGE // (4 * self.dim))
        with told(self._place):
            send = self._client.upsert if replace else self._client.insert
            for start in range(0, len(items), some):
                send(self._name, items[start : start + some], timeout=SECONDS)

    def _sent(self, number: int, row: Row) -> dict[str, Any]:
        key, note, text, vector = row
        for what, value in (("key", sent(key)), ("text", spaced(text or ""))):
            if len(value.encode()) > LONGEST_TEXT:
                raise UserError(
                    f"the {what} of {key[:50]!r} is longer than Milvus takes, {LONGEST_TEXT:,} bytes: cut it"
                )
        return {
            "number": number,
            "key": sent(key),
            "metadata": json.loads(note),
            "text": text,
            "words": spaced(text or ""),
            "vector": vector.tolist(),
        }

    def _remove(self, keys: list[str]) -> int:
        known = self._known(keys)
        if known:
            with told(self._place):
                self._client.delete(self._name, ids=[sent(key) for key in known], timeout=SECONDS)
        return len(known)

    def _near(
        self, query: Float32[np.ndarray, "q d"], *, count: int, where: dict[str, Any], exact: bool
    ) -> list[list[Found]]:
        test, count = condition(where), min(count, _MOST)
        with told(self._place):
            breadth = int(said(self._client, self._place)["breadth"])
            if exact and breadth:
                raise UserError(f"{self.address} has a graph, by which Milvus cannot search exactly: leave exact out")
            some, found = max(1, _MESSAGE // (4 * self.dim * count)), []
            for start in range(0, len(query), some):
                found += self._client.search(
                    self._name,
                    query[start : start + some].tolist(),
                    anns_field="vector",
                    filter=test,
                    limit=count,
                    output_fields=_FIELDS,
                    search_params={"metric_type": "IP", "params": {"ef": max(breadth, count)} if breadth else {}},
                    consistency_level="Strong",
                    timeout=SECONDS,
                )
        return [[_found(hit["entity"]) for hit in hits] for hits in found]

    def _with_words(self, text: str, *, count: int, where: dict[str, Any]) -> list[tuple[Found, float]]:
        terms_of(text)  # refuses a text without words
        with told(self._place):
            (hits,) = self._client.search(
                self._name,
                [spaced(text)],
                anns_field="sparse",
                filter=condition(where),
                limit=min(count, _MOST),
                output_fields=_FIELDS,
                consistency_level="Strong",
                timeout=SECONDS,
            )
        # milvus-lite gives BM25 a minus sign
        return [(_found(hit["entity"]), abs(hit["distance"])) for hit in hits]

    def _items(self, keys: list[str]) -> list[Found]:
        return [_found(one) for one in self._all(any_key(keys), _FIELDS)] if keys else []

    def _known(self, keys: Sequence[str]) -> list[str]:
        return [kept(one["key"]) for one in self._all(any_key(keys), ["key"])] if keys else []

    def _count(self, where: dict[str, Any]) -> int:
        with told(self._place):
            asked = {"filter": condition(where), "output_fields": ["count(*)"], "consistency_level": "Strong"}
            return int(self._client.query(self._name, timeout=SECONDS, **asked)[0]["count(*)"])

    def _keys(self, where: dict[str, Any]) -> list[str]:
        found = self._all(condition(where), ["key", "number"])
        return [kept(one["key"]) for one in sorted(found, key=lambda one: one["number"])]

    def _all(self, test: str, fields: list[str]) -> list[dict[str, Any]]:
        """Return all that meets a filter, some thousands at a time."""
        found: list[dict[str, Any]] = []
        with told(self._place):
            pages = self._client.query_iterator(
                self._name, batch_size=1000, filter=test, output_fields=fields, consistency_level="Strong"
            )
            while some := pages.next():
                found += some
            pages.close()
        return found

    def _fields(self, field: str) -> list[str] | None:
        with told(self._place):
            has = f'exists metadata["{field}"]'
            if self._client.query(self._name, filter=has, output_fields=["key"], limit=1, timeout=SECONDS):
                return None
            some = self._client.query(self._name, filter="", output_fields=["metadata"], limit=1000, timeout=SECONDS)
        return sorted({name for one in some for name in one["metadata"]})


def _found(entity: dict[str, Any]) -> Found:
    return Found(entity["number"], item(kept(entity["key"]), entity["metadata"], entity["text"], entity["vector"]))
