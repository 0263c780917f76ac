"""Approximate nearest neighbours: a graph over the vectors of an index (faiss HNSW), and its measured recall.

Reference:
    Malkov and Yashunin 2016, arXiv 1603.09320. The graph only proposes; what it proposes is scored exactly.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float32, Int64

from diptych.core.errors import UserError
from diptych.search.exact import exact, settle

_LINKS = 32
_BUILD_BREADTH = 80
_BREADTHS = (64, 128, 256, 512)
_PIECE = 8192
_MORE = 2  # proposals for each result asked for: the graph's own scores are of half precision


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What the catalog keeps of a graph: its file, the slots it covers, how widely it looks, and how well."""

    file: str
    slots: int
    breadth: int
    recall: float

    @classmethod
    def parse(cls, text: str) -> GraphFacts:
        """Read what `text` wrote."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Write as JSON."""
        return json.dumps(asdict(self))


def installed() -> bool:
    """Say whether faiss is at hand."""
    return importlib.util.find_spec("faiss") is not None


def _faiss() -> Any:
    return importlib.import_module("faiss")  # only when a graph is used; its stubs do not know its Python side


class Graph:
    """A faiss graph whose numbers are the slots of the index, removed ones included."""

    def __init__(self, faiss_index: Any) -> None:
        self._index = faiss_index

    @classmethod
    def empty(cls, dim: int) -> Self:
        """Make a graph without vectors."""
        faiss = _faiss()
        index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, _LINKS)
        index.hnsw.efConstruction = _BUILD_BREADTH
        index.train(np.zeros((1, dim), dtype=np.float32))
        return cls(index)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a graph from its file.

        Raises:
            FileNotFoundError: when there is none.
            UserError: when faiss cannot read it.
        """
        faiss = _faiss()
        file.stat()
        try:
            return cls(faiss.read_index(str(file)))
        except RuntimeError:
            raise UserError(f"{file} cannot be read: run `optimize` on the index to make it anew") from None

    def save(self, file: Path) -> None:
        """Write the graph to a file.

        Raises:
            OSError: when the disk is full.
        """
        faiss = _faiss()
        try:
            faiss.write_index(self._index, str(file))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def extend(self, vectors: Float32[np.ndarray, "n d"]) -> None:
        """Take in the vectors that it does not know yet: those after its last slot."""
        for start in range(len(self), len(vectors), _PIECE):
            self._index.add(np.ascontiguousarray(vectors[start : start + _PIECE]))

    def propose(
        self, query: Float32[np.ndarray, "q d"], allowed: Bool[np.ndarray, " n"], *, k: int, breadth: int
    ) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
        """Return candidates for the k nearest of each query: queries and slots.

        Args:
            query: unit vectors.
            allowed: which slots may be proposed, for at least all that the graph knows.
            k: how many neighbours are looked for.
            breadth: how many paths are followed; more find more.
        """
        faiss = _faiss()
        count = min(_MORE * k, len(self))
        bits = np.packbits(allowed[: len(self)], bitorder="little")  # faiss keeps no reference: this name must live
        selector = None if bool(allowed[: len(self)].all()) else faiss.IDSelectorBitmap(bits)
        settings = faiss.SearchParametersHNSW(efSearch=max(breadth, count), sel=selector)
        _, slots = self._index.search(query, count, params=settings)
        which, place = np.nonzero(slots >= 0)
        return which, slots[which, place]


def nearest(
    graph: Graph,
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    allowed: Bool[np.ndarray, " n"],
    *,
    k: int,
    breadth: int,
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """Do what `exact` does, nearly: look along the graph, and exactly through the vectors that it does not know yet.

    A query for which the graph proposes less than there is gets an exact answer.
    """
    k, known = min(k, int(np.count_nonzero(allowed))), len(graph)
    which, slots = graph.propose(query, allowed, k=k, breadth=breadth)
    late, _ = exact(query, vectors[known:], allowed[known:], k=k)
    which = np.concatenate([which, np.repeat(np.arange(len(query)), late.shape[1])])
    which, slots, scores = settle(query, vectors, which, np.concatenate([slots, known + late.ravel()]), k=k)
    found_slots, found_scores = np.empty((len(query), k), np.int64), np.empty((len(query), k), np.float32)
    full = np.bincount(which, minlength=len(query)) == k
    found_slots[full], found_scores[full] = (part[full[which]].reshape(-1, k) for part in (slots, scores))
    if not full.all():
        found_slots[~full], found_scores[~full] = exact(query[~full], vectors, allowed, k=k)
    return found_slots, found_scores


def measure(
    graph: Graph,
    vectors: Float32[np.ndarray, "n d"],
    alive: Bool[np.ndarray, " n"],
    *,
    sample: int,
    k: int,
    target: float,
) -> tuple[int, float]:
    """Find the least breadth that reaches a recall, on neighbours of some of the vectors themselves.

    Returns:
        The breadth, and the share of the k nearest (the vector itself not counted) that it finds; those of the
        widest search when none reaches the target.
    """
    some = np.flatnonzero(alive)
    query = vectors[np.sort(np.random.default_rng(0).choice(some, min(sample, len(some)), replace=False))]
    truth = exact(query, vectors, alive, k=k + 1)[1][:, -1]
    breadth, recall = 0, 0.0
    for breadth in _BREADTHS:
        which, slots = graph.propose(query, alive, k=k + 1, breadth=breadth)
        which, _, scores = settle(query, vectors, which, slots, k=k + 1)
        good = np.bincount(which[scores >= truth[which]], minlength=len(query))
        recall = float(np.clip(good - 1, 0, k).mean() / k)
        if recall >= target:
            break
    return breadth, recall
