"""The files of one index, opened: consistent reading, all-or-nothing writing, and the nearest vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from diptych.core.errors import UserError
from diptych.search import upkeep
from diptych.search.catalog import Catalog
from diptych.search.exact import exact as exact_search
from diptych.search.faults import damaged, told
from diptych.search.graph import Graph, GraphFacts, installed, nearest
from diptych.search.header import FORMAT, Header
from diptych.search.lock import WriterLock
from diptych.search.sieve import Sieve, SieveFacts
from diptych.search.sifted import MOST, sifted
from diptych.search.vectors import VectorFile
from diptych.search.view import View

_SHARE = 0.25  # under a filter that lets less through, looking through what is left is surer and as fast


class Store:
    """What `FolderIndex` stands on. Without a lock it is read-only; threads may share it."""

    def __init__(self, folder: Path, header: Header, catalog: Catalog, lock: WriterLock | None) -> None:
        self.folder, self.header, self.catalog, self.lock = folder, header, catalog, lock
        self._guard = threading.RLock()
        self._view: View | None = None
        self._graph: tuple[str, Graph] | None = None
        self._sieve: tuple[str, Sieve] | None = None

    def start(self) -> None:
        """See that everything is there, and clear away what a writer that was killed left behind."""
        with self.reading() as view:
            pass
        if self.lock is not None:
            with told(self.folder, "opening"):
                VectorFile(self.folder, view.facts.generation, self.header.dim).cut(view.facts.slots)
                upkeep.sweep(self.folder, view.facts)
            if not self.catalog.has_words():
                self._renew()

    def _renew(self) -> None:
        """Bring an index of format 1 to today's; the header first, so that no older diptych leaves words behind."""
        self.header = replace(self.header, format=FORMAT)
        self.header.write(self.folder)
        with self.writing("renewing"):
            self.catalog.index_words()

    def close(self) -> None:
        """Let go of the files."""
        self.catalog.close()
        if self.lock is not None:
            self.lock.release()
        self._view = self._graph = self._sieve = None

    def need_lock(self) -> None:
        """Refuse to change an index that is open read-only."""
        if self.lock is None:
            raise UserError(f"the index {self.folder} is open read-only: open it without read_only to change it")

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Hold one consistent state for the block."""
        with self._guard, told(self.folder, "reading"):
            for _ in range(3):
                with self.catalog.reading():
                    try:
                        self._view = View.of(self.catalog, self.folder, self.header.dim, self._view)
                    except FileNotFoundError:
                        continue  # a writer compacted the index after this transaction began: look again
                    yield self._view
                    return
            raise damaged(self.folder, "the file of vectors is missing")

    @contextmanager
    def writing(self, doing: str) -> Iterator[None]:
        """Commit the block's changes to the catalog at its end, or nothing."""
        self.need_lock()
        with self._guard, told(self.folder, doing), self.catalog.writing():
            yield

    def nearest(
        self,
        query: Float32[np.ndarray, "q d"],
        view: View,
        allowed: Bool[np.ndarray, " n"],
        *,
        k: int,
        exact: bool,
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """Find the nearest allowed vectors of each query, along the graph or by the sieve where that pays."""
        if np.count_nonzero(allowed) < _SHARE * len(allowed):
            return exact_search(query, view.vectors, allowed, k=k)
        graph = None if exact else self._loaded(view)
        if graph is not None and view.facts.graph is not None:
            breadth = GraphFacts.parse(view.facts.graph).breadth
            return nearest(graph, query, view.vectors, allowed, k=k, breadth=breadth)
        sieve = self._sieved(view) if k <= MOST else None
        if sieve is None:
            return exact_search(query, view.vectors, allowed, k=k)
        return sifted(sieve, query, view.vectors, allowed, k=k)

    def _sieved(self, view: View) -> Sieve | None:
        """Return the sieve of a view, from memory or its file, or None where there is none that helps."""
        if view.facts.codes is None or not SieveFacts.parse(view.facts.codes).quick():
            return None
        name = SieveFacts.parse(view.facts.codes).file
        if self._sieve is None or self._sieve[0] != name:
            try:
                self._sieve = (name, upkeep.load_sieve(self.folder / name))
            except FileNotFoundError:
                return None
        return self._sieve[1]

    def _loaded(self, view: View) -> Graph | None:
        """Return the graph of a view, from memory or its file, or None where there is none."""
        if view.facts.graph is None or not installed():
            return None
        name = GraphFacts.parse(view.facts.graph).file
        if self._graph is None or self._graph[0] != name:
            try:
                self._graph = (name, Graph.load(self.folder / name))
            except FileNotFoundError:
                return None
        return self._graph[1]

    def set_aids(self, view: View, *, sieve: SieveFacts | None, graph: GraphFacts | None) -> None:
        """Make a sieve and a graph that were built over a view those to search by, or with None do without."""
        with self.writing("optimizing"):
            if self.catalog.facts().generation != view.facts.generation:
                raise UserError(f"the index {self.folder} was compacted meanwhile: optimize it again")
            self.catalog.set_facts(
                {"codes": None if sieve is None else sieve.text(), "graph": None if graph is None else graph.text()}
            )
        with self._guard:
            upkeep.sweep(self.folder, self.catalog.facts())

    def vacuum(self) -> None:
        """Copy what lives to new files and remove the old ones."""
        with self.writing("compacting"):
            upkeep.compact(self.catalog, self.folder, self.header.dim)
        with self._guard, told(self.folder, "compacting"):
            self.catalog.shrink()
            upkeep.sweep(self.folder, self.catalog.facts())
