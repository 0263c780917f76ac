"""Care of an index on disk: compaction, sieve and graph for fast search, and files that nothing names any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from diptych.search.catalog import Catalog, Facts
from diptych.search.codes import Codes
from diptych.search.graph import Graph, GraphFacts, measure
from diptych.search.heads import Heads
from diptych.search.sieve import TILE, Sieve, SieveFacts, quick_integers
from diptych.search.vectors import VectorFile, sync_folder
from diptych.search.view import View

_PART = 8192


def compact(catalog: Catalog, folder: Path, dim: int) -> None:
    """Copy the living vectors to a new file, in their order; inside the catalog's `writing`."""
    facts, slots = catalog.facts(), catalog.slots({})
    old = VectorFile(folder, facts.generation, dim).rows(facts.slots)
    new = VectorFile(folder, facts.generation + 1, dim)
    new.create()
    for start in range(0, len(slots), _PART):
        new.write(start, old[slots[start : start + _PART]])
    new.sync()
    catalog.renumber()
    catalog.set_facts({"generation": facts.generation + 1, "slots": len(slots), "graph": None, "codes": None})


def build_graph(view: View, folder: Path, *, sample: int, k: int, target: float) -> GraphFacts:
    """Make or lengthen the graph over all vectors of a view, save it and measure it."""
    facts, graph = view.facts, Graph.empty(view.vectors.shape[1])
    if facts.graph is not None and 2 * GraphFacts.parse(facts.graph).slots >= facts.slots:
        with suppress(FileNotFoundError):
            graph = Graph.load(folder / GraphFacts.parse(facts.graph).file)
    graph.extend(view.vectors)
    k = min(k, max(1, int(np.count_nonzero(view.alive)) - 1))
    breadth, recall = measure(graph, view.vectors, view.alive, sample=sample, k=k, target=target)
    name = f"graph-{facts.generation}-{facts.slots}.faiss"
    _put(folder, name, graph.save)
    return GraphFacts(file=name, slots=facts.slots, breadth=breadth, recall=recall)


def build_sieve(view: View, folder: Path) -> SieveFacts | None:
    """Make or lengthen what rules rows out over the vectors of a view, and save it; None where it would not pay."""
    facts = view.facts
    kind = "codes" if quick_integers() else "heads"
    slots = facts.slots // TILE * TILE
    name = f"{kind}-{facts.generation}-{slots}.safetensors"
    before = None if facts.codes is None else SieveFacts.parse(facts.codes)
    sieve: Sieve | None = None
    if before is not None and before.file.startswith(kind) and 2 * before.slots >= slots:
        with suppress(FileNotFoundError):
            sieve = load_sieve(folder / before.file)
    if sieve is None:
        sieve = Codes.empty(view.vectors.shape[1]) if kind == "codes" else Heads.fitted(view.vectors, view.alive)
    if sieve is None:
        return None
    if len(sieve) < slots or not (folder / name).is_file():
        _put(folder, name, sieve.extended(view.vectors).save)
    return SieveFacts(file=name, slots=slots)


def load_sieve(file: Path) -> Sieve:
    """Load a sieve of either kind.

    Raises:
        FileNotFoundError: when there is none.
        UserError: when it cannot be read.
    """
    return Codes.load(file) if file.name.startswith("codes-") else Heads.load(file)


def _put(folder: Path, name: str, save: Callable[[Path], None]) -> None:
    """Write a file whole and safe on disk, or not at all."""
    half = folder / f"{name}.part"
    try:
        save(half)
        with half.open("r+b") as file:
            os.fsync(file.fileno())
        half.replace(folder / name)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def sweep(folder: Path, facts: Facts) -> None:
    """Remove files of earlier states and of work that was cut off; who still has one open keeps it until then."""
    keep = {f"vectors-{facts.generation}.f32"}
    if facts.graph is not None:
        keep.add(GraphFacts.parse(facts.graph).file)
    if facts.codes is not None:
        keep.add(SieveFacts.parse(facts.codes).file)
    for pattern in ("vectors-*.f32", "graph-*", "codes-*", "heads-*"):
        for file in folder.glob(pattern):
            if file.name not in keep:
                with suppress(OSError):
                    file.unlink()
