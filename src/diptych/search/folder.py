"""FolderIndex, the embedded store: a folder with a file of vectors, an SQLite table and, when large, a graph.

One process writes and any number read meanwhile; a reader sees whole writes only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from diptych.core.errors import UserError
from diptych.search import upkeep
from diptych.search.catalog import Catalog, Row
from diptych.search.faults import damaged, told
from diptych.search.graph import GraphFacts, installed
from diptych.search.header import FORMAT, Header
from diptych.search.index import Hit, Index, Item, Metadata, Plan, Where, at_least_one
from diptych.search.lock import WriterLock
from diptych.search.rows import rows_of
from diptych.search.sieve import TILE, SieveFacts
from diptych.search.store import Store
from diptych.search.unit import Vectors, unit
from diptych.search.vectors import VectorFile
from diptych.search.words import query_of

_NO_FAISS = "faiss is not installed (pip install 'diptych[search]' for approximate search)"
_PART = 8192  # vectors written at a time
_OURS = ("index.json.part", "rows.sqlite", "writer.lock", "vectors-")


class FolderIndex(Index):
    """An index in a folder. Make one by `create` or `open`; threads may share it.

    A write is on the disk when the call returns: kill -9 or a power cut loses nothing that was acknowledged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def create(cls, folder: str | Path, *, dim: int, model: str) -> FolderIndex:
        """Make an empty index.

        Args:
            folder: where; made when missing, and it must hold nothing else.
            dim: length of the vectors.
            model: identity of the model that makes them; only that model's vectors can be compared with them.

        Raises:
            UserError: when the folder holds an index or other files, or cannot be written.
        """
        place = Path(folder)
        if dim < 1:
            raise UserError(f"an index needs vectors of 1 or more numbers, not {dim}")
        if Header.there(place):
            raise UserError(f"{place} already holds an index: open it to add to it, or choose another folder")
        with told(place, "making"), ExitStack() as undo:
            place.mkdir(parents=True, exist_ok=True)
            others = sorted(path.name for path in place.iterdir() if not path.name.startswith(_OURS))
            if others:
                raise UserError(f"{place} holds other files ({', '.join(others[:3])}): choose a new or empty folder")
            lock = WriterLock(place)
            undo.callback(lock.release)
            for left in place.glob("rows.sqlite*"):  # of a creation that was cut off: there is no header
                left.unlink()
            VectorFile(place, 0, dim).create()
            catalog = Catalog(place / "rows.sqlite", read_only=False, create=True)
            undo.callback(catalog.close)
            header = Header(format=FORMAT, dim=dim, model=model)
            header.write(place)
            undo.pop_all()
        return cls(Store(place, header, catalog, lock))

    @classmethod
    def open(cls, folder: str | Path, *, model: str | None = None, read_only: bool = False) -> FolderIndex:
        """Open an index that is there.

        Args:
            folder: where it is.
            model: identity of the model whose vectors will be added or looked for; None skips the check.
            read_only: look only; several may, also while another process writes.

        Raises:
            UserError: when there is none, it belongs to another model, is damaged, or is open for writing elsewhere.
        """
        place = Path(folder)
        header = Header.read(place)
        if model is not None and model != header.model:
            raise UserError(
                f"the index {place} holds vectors of the model {header.model!r}, which cannot be compared with those "
                f"of {model!r}: use that model, or index again with this one"
            )
        if not (place / "rows.sqlite").is_file():
            raise damaged(place, "rows.sqlite is missing")
        with told(place, "opening"), ExitStack() as undo:
            lock = None if read_only else WriterLock(place)
            if lock is not None:
                undo.callback(lock.release)
            catalog = Catalog(place / "rows.sqlite", read_only=read_only)
            undo.callback(catalog.close)
            store = Store(place, header, catalog, lock)
            store.start()
            undo.pop_all()
        return cls(store)

    @property
    def dim(self) -> int:
        """Return the length of each vector."""
        return self._store.header.dim

    @property
    def model(self) -> str:
        """Return the identity of the model that makes the vectors."""
        return self._store.header.model

    def add(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metadata: Sequence[Metadata] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Store new items, all or none; see `Index.add`."""
        self._write(rows_of(keys, metadata, texts), vectors, replace=False)

    def upsert(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metadata: Sequence[Metadata] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Store items, replacing whole those whose keys are known, all or none; see `Index.upsert`."""
        self._write(rows_of(keys, metadata, texts), vectors, replace=True)

    def delete(self, keys: Sequence[str]) -> int:
        """Remove items; return how many of the keys were there. `vacuum` gives the space back."""
        with self._store.writing("deleting from"):
            return self._store.catalog.remove(keys)

    def search(
        self, vectors: Vectors, *, k: int = 10, where: Where | None = None, exact: bool = False
    ) -> list[list[Hit]]:
        """Find the nearest items of each query; see `Index.search`."""
        at_least_one(k)
        query = unit(vectors, dim=self.dim)
        with self._store.reading() as view:
            allowed = view.allowed(self._store.catalog, dict(where or {}))
            slots, scores = self._store.nearest(query, view, allowed, k=k, exact=exact)
            found = {row[0]: row for row in self._store.catalog.by_slot(np.unique(slots).tolist())}
        return [
            [_hit(found[slot], score) for slot, score in zip(one, its_scores, strict=True)]
            for one, its_scores in zip(slots.tolist(), scores.tolist(), strict=True)
        ]

    def matching(self, text: str, *, k: int = 10, where: Where | None = None) -> list[Hit]:
        """Find the items whose text holds words of another text, by BM25; see `Index.matching`."""
        at_least_one(k)
        query = query_of(text)
        with self._store.reading():
            if not self._store.catalog.has_words():
                raise UserError(
                    f"the index {self._store.folder} was made before search by words: open it once for writing, "
                    "for example with `diptych index`"
                )
            scores = self._store.catalog.matching(query, dict(where or {}), k=k)
            found = {row[0]: row for row in self._store.catalog.by_slot([slot for slot, _ in scores])}
        return [_hit(found[slot], score) for slot, score in scores]

    def get(self, keys: Sequence[str]) -> list[Item]:
        """Return the items of these keys, in their order; see `Index.get`."""
        with self._store.reading() as view:
            rows = {key: (slot, note, text) for slot, key, note, text in self._store.catalog.by_key(keys)}
            missing = [key for key in keys if key not in rows]
            if missing:
                more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
                raise UserError(f"the key {missing[0]!r}{more} is not in the index {self._store.folder}")
            return [
                Item(key, view.vectors[slot].copy(), json.loads(note), text)
                for key, (slot, note, text) in ((key, rows[key]) for key in keys)
            ]

    def count(self, where: Where | None = None) -> int:
        """Count the items, or those that meet a filter."""
        with self._store.reading() as view:
            return int(np.count_nonzero(view.allowed(self._store.catalog, dict(where or {}))))

    def keys(self, where: Where | None = None) -> list[str]:
        """Return the keys, or those of the items that meet a filter, in the order of insertion."""
        with self._store.reading():
            return self._store.catalog.keys(dict(where or {}))

    def vacuum(self) -> None:
        """Give the space of deleted and replaced items back; the graph, if any, must be made again by `optimize`."""
        self._store.vacuum()

    def optimize(
        self,
        *,
        sifted_from: int = 20_000,
        approximate_from: int = 1_000_000,
        recall: float = 0.99,
        sample: int = 200,
        k: int = 10,
    ) -> Plan:
        """Prepare for fast search: a sieve from some size on, and a graph where even that takes too long.

        By the sieve (see `diptych.search.sieve`) search stays exact and reads a fraction; it is made in seconds. The
        graph takes a minute and a half per 100,000 vectors and core, and finds nearly all of the nearest. Items added
        later are looked through in full until this is called again. The recall is measured with vectors of the index as
        queries; queries of another kind, such as sentences over pictures, may find a little less.

        Args:
            sifted_from: number of items from which on there is a sieve.
            approximate_from: number of items from which on search is approximate.
            recall: share of the true k nearest that must be found, or search stays exact.
            sample: how many queries to measure it with.
            k: how many nearest to measure it with.
        """
        self._store.need_lock()
        with self._store.reading() as view:
            count = int(np.count_nonzero(view.alive))
        sieve = graph = None
        with told(self._store.folder, "optimizing"):
            if count >= max(sifted_from, TILE):
                sieve = upkeep.build_sieve(view, self._store.folder)
            if count >= approximate_from and installed():
                graph = upkeep.build_graph(view, self._store.folder, sample=sample, k=k, target=recall)
        reached = graph if graph is not None and graph.recall >= recall else None
        self._store.set_aids(view, sieve=sieve, graph=reached)
        if graph is not None and reached is None:
            return Plan("exact", count, graph.recall, f"approximate search would find only {graph.recall:.1%}")
        if graph is None and count >= approximate_from:
            return Plan("exact", count, None, _NO_FAISS)
        return self.plan()

    def plan(self) -> Plan:
        """Say how it searches now."""
        with self._store.reading() as view:
            count, slots = int(np.count_nonzero(view.alive)), view.facts.slots
        if view.facts.graph is not None and installed():
            graph = GraphFacts.parse(view.facts.graph)
            note = f"finds {graph.recall:.1%} of the nearest{_late(slots - graph.slots, how='exactly')}"
            return Plan("approximate", count, graph.recall, note)
        if view.facts.graph is not None:
            return Plan("exact", count, None, _NO_FAISS)
        sieve = None if view.facts.codes is None else SieveFacts.parse(view.facts.codes)
        if sieve is None or not sieve.quick():
            return Plan("exact", count, None, "every vector is compared")
        late = slots - sieve.slots
        note = "nearly all ruled out by a part of each vector, the rest compared"
        return Plan("exact", count, None, note + _late(late if late >= TILE else 0, how="in full"))

    def close(self) -> None:
        """Let go of the folder; a writer lets another in."""
        self._store.close()

    def _write(self, rows: list[tuple[str, str, str | None]], vectors: Vectors, *, replace: bool) -> None:
        vectors = vectors[None] if vectors.ndim == 1 else vectors
        keys = [key for key, _, _ in rows]
        if len(vectors) != len(keys):
            raise UserError(f"{len(vectors)} vectors were given for {len(keys)} keys: give one for each")
        if not keys:
            return
        with self._store.writing("adding to"):
            known = self._store.catalog.known(keys)
            if known and not replace:
                more = f" (and {len(known) - 1} more)" if len(known) > 1 else ""
                raise UserError(f"the key {known[0]!r}{more} is already in the index: use upsert to replace it")
            self._store.catalog.remove(known)
            facts = self._store.catalog.facts()
            file = VectorFile(self._store.folder, facts.generation, self.dim)
            for start in range(0, len(keys), _PART):
                names = keys[start : start + _PART]
                file.write(facts.slots + start, unit(vectors[start : start + _PART], dim=self.dim, names=names))
            self._store.catalog.insert([(facts.slots + place, *row) for place, row in enumerate(rows)])
            self._store.catalog.set_facts({"slots": facts.slots + len(keys)})
            file.sync()  # before the commit, so that no row ever names a vector that is not there


def _late(slots: int, *, how: str) -> str:
    return f"; {slots:,} later ones {how}" if slots > 0 else ""


def _hit(row: Row, score: float) -> Hit:
    _, key, note, text = row
    return Hit(key, score, json.loads(note), text)
