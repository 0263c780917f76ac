r"""Nearest neighbours: our exact and approximate search beside faiss and usearch, in batch and one query at a time.

Vectors are drawn around clusters in 32 dimensions with a little noise in all, which flatters whatever uses that they
lie near a plane (our sieve where there are no 8-bit products, and every graph), or read from `--vectors` and
`--queries`, which `diptych embed` writes: only those say what your vectors cost.

Exact contestants are shown to find the same before they are timed; approximate ones are timed at the least breadth
that reaches a recall of 0.99 on the queries. Graphs take a quarter of an hour each at a million;
`--no-graphs` leaves them out.

    python -m benchmarks.search --rows 1000000
    python -m benchmarks.search --vectors images.npy --queries texts.npy
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from benchmarks.measure import arguments, interleave, report, resident
from diptych.search.codes import Codes
from diptych.search.exact import exact
from diptych.search.graph import Graph, nearest
from diptych.search.heads import Heads
from diptych.search.sieve import quick_integers
from diptych.search.sifted import sifted

K = 10
GOAL = 0.99
BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
_PART = 1 << 16

Vectors = Float32[np.ndarray, "n d"]
Find = Callable[[Vectors], Int64[np.ndarray, "q k"]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that finds the rows nearest to queries; `peer` is what it is measured against."""

    find: Find
    peer: str
    note: str = ""
    build: float | None = None


def unit(vectors: np.ndarray) -> Vectors:
    """Bring rows to length 1."""
    rows: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def drawn(rows: int, dim: int, *, seed: int) -> Vectors:
    """Draw unit vectors around 2,000 centres in 32 dimensions, with noise of variance 1/4 in all."""
    base, centres = np.random.default_rng(7), np.random.default_rng(8)
    plane = base.standard_normal((32, dim), dtype=np.float32)
    middle = centres.standard_normal((2000, 32), dtype=np.float32)
    rng, out = np.random.default_rng(seed), np.empty((rows, dim), np.float32)
    for start in range(0, rows, _PART):
        part = out[start : start + _PART]
        inner = middle[rng.integers(0, len(middle), len(part))]
        inner = inner + 0.5 * rng.standard_normal((len(part), 32), dtype=np.float32)
        part[:] = unit(inner @ plane + 0.5 * rng.standard_normal(part.shape, dtype=np.float32))
    return out


class Truth:
    """The exact scores of the nearest: what is as near as the last of them counts, for real data has equal rows."""

    def __init__(self, vectors: Vectors, queries: Vectors, nearest: Int64[np.ndarray, "q k"]) -> None:
        self._vectors, self._queries = vectors, queries
        self._floor = self._scores(nearest).min(1, keepdims=True) - 1e-6  # float32 rounds

    def recall(self, found: Int64[np.ndarray, "q k"]) -> float:
        """Return the share of the nearest that were found."""
        return float((self._scores(found) >= self._floor).mean())

    def _scores(self, rows: Int64[np.ndarray, "q k"]) -> Float32[np.ndarray, "q k"]:
        scores = np.einsum("qkd,qd->qk", self._vectors[np.maximum(rows, 0)], self._queries)
        return np.where(rows < 0, -np.inf, scores)


def exact_contestants(vectors: Vectors) -> dict[str, Contestant]:
    """Prepare what compares everything: ours and faiss."""
    everything = np.ones(len(vectors), dtype=bool)
    start = time.process_time()
    sieve = Codes.empty(vectors.shape[1]) if quick_integers() else Heads.fitted(vectors, everything)
    sieve = None if sieve is None else sieve.extended(vectors)
    built = time.process_time() - start
    flat = _faiss().IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    found = {
        "ours, plain": Contestant(lambda q: exact(q, vectors, everything, k=K)[0], "faiss flat"),
        "faiss flat": Contestant(lambda q: flat.search(q, K)[1], "faiss flat"),
    }
    if sieve is None:
        print("no sieve would pay for these vectors: ours is the plain search")
        return found
    note = "8-bit codes" if isinstance(sieve, Codes) else f"{sieve.directions.shape[1]} directions"
    ours = Contestant(lambda q: sifted(sieve, q, vectors, everything, k=K)[0], "faiss flat", note=note, build=built)
    return {"ours, sieve": ours, **found}


def _ours(vectors: Vectors) -> Callable[[int], Find]:
    graph, everything = Graph.empty(vectors.shape[1]), np.ones(len(vectors), dtype=bool)
    graph.extend(vectors)
    return lambda breadth: lambda q: nearest(graph, q, vectors, everything, k=K, breadth=breadth)[0]


def _faiss_graph(vectors: Vectors) -> Callable[[int], Find]:
    faiss = _faiss()
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 80
    graph.add(vectors)

    def at(breadth: int) -> Find:
        return lambda q: graph.search(q, K, params=faiss.SearchParametersHNSW(efSearch=breadth))[1]

    return at


def _usearch_graph(vectors: Vectors) -> Callable[[int], Find]:
    usearch: Any = importlib.import_module("usearch.index")
    graph = usearch.Index(ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=32, expansion_add=80)
    graph.add(np.arange(len(vectors)), vectors, threads=torch.get_num_threads())

    def find(q: Vectors, breadth: int) -> Int64[np.ndarray, "q k"]:
        graph.expansion_search = breadth
        keys = graph.search(q, K, threads=1).keys
        return np.asarray(keys, dtype=np.int64).reshape(len(q), -1)

    return lambda breadth: lambda q: find(q, breadth)


def graph_contestants(vectors: Vectors, queries: Vectors, truth: Truth, names: list[str]) -> dict[str, Contestant]:
    """Build graphs, each at the least breadth that reaches the goal."""
    makers = {"ours": _ours, "faiss": _faiss_graph, "usearch": _usearch_graph}
    found = {}
    for name in names:
        if name == "usearch" and importlib.util.find_spec("usearch") is None:
            print("usearch is not installed: left out")
            continue
        start = time.process_time()
        at = makers[name](vectors)
        built = time.process_time() - start
        for breadth in BREADTHS:
            reached = truth.recall(at(breadth)(queries))
            if reached >= GOAL:
                break
        print(f"{name} graph: built in {built:,.0f} CPU s, recall@{K} {reached:.4f} at breadth {breadth}", flush=True)
        found[f"{name}, graph"] = Contestant(at(breadth), "faiss, graph", note=f"breadth {breadth}", build=built)
    return found


def singles(find: Find, queries: Vectors, count: int) -> Callable[[], None]:
    """Ask one query after another."""

    def run() -> None:
        for place in range(count):
            find(queries[place % len(queries)][None])

    return run


def rows_of(
    contestants: dict[str, Contestant], queries: Vectors, truth: Truth, *, repeats: int
) -> list[dict[str, Any]]:
    """Time all contestants in turns, in batch and alone."""
    many = {name: 8 if "graph" not in name else 200 for name in contestants}
    batch = interleave({name: lambda c=c: c.find(queries) for name, c in contestants.items()}, repeats=repeats)
    alone = interleave({n: singles(c.find, queries, many[n]) for n, c in contestants.items()}, repeats=repeats)
    rows = []
    for name, one in contestants.items():
        peer = one.peer if one.peer in contestants else name
        own = alone[name].median / many[name]
        rows.append(
            {
                "search": name,
                "recall@10": truth.recall(one.find(queries)),
                "queries/s": len(queries) / batch[name].median,
                "x peer": batch[peer].median / batch[name].median,
                "single ms": 1000 * own,
                "x peer, single": alone[peer].median / many[peer] / own,
                "build s": one.build,
                "note": one.note or "-",
            }
        )
    return rows


def _faiss() -> Any:
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    return faiss


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=512, help="queries in a batch")
    parser.add_argument("--vectors", type=Path, help="a .npy file of real vectors")
    parser.add_argument("--queries", type=Path, help="a .npy file of real queries; without it some of the vectors")
    parser.add_argument("--graphs", default="ours,faiss,usearch", help="which graphs to build")
    parser.add_argument("--no-graphs", action="store_true", help="exact search only")


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, more=_options)
    if options.vectors is None:
        vectors = drawn(options.rows, options.dim, seed=1)
        queries = drawn(options.batch, options.dim, seed=2)
        what = f"{len(vectors):,} drawn vectors"
    else:
        vectors = unit(np.load(options.vectors)[: options.rows])
        pool = vectors if options.queries is None else unit(np.load(options.queries))
        queries = pool[np.random.default_rng(0).choice(len(pool), min(options.batch, len(pool)), replace=False)]
        what = f"{len(vectors):,} vectors of {options.vectors.name}"
    contestants = exact_contestants(vectors)
    ours = contestants["ours, plain"].find(queries)
    truth = Truth(vectors, queries, ours)
    for name, one in contestants.items():
        assert not name.startswith("ours") or (one.find(queries) == ours).all()
        assert truth.recall(one.find(queries)) == 1
    rows = rows_of(contestants, queries, truth, repeats=options.repeats)
    if not options.no_graphs:
        graphs = graph_contestants(vectors, queries, truth, options.graphs.split(","))
        rows += rows_of(graphs, queries, truth, repeats=options.repeats)
    notes = [
        f"{what} of {vectors.shape[1]} numbers, {len(queries)} queries, {K} nearest; one thread, CPU time, in turns",
        f"goals: exact 4x faiss flat in batch, 3x alone; approximate .99 under 1 ms; peak {resident():,.0f} MiB",
    ]
    report("Search", rows, notes=notes, path=options.json)


if __name__ == "__main__":
    main()
