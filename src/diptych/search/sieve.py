"""What rules out most rows of an exact search: an interface, and which of its two kinds suits the processor.

Both read a fraction of what the vectors hold, and prove of nearly every row that it is not among the nearest. Codes in
8 bits suit processors that multiply 8-bit integers at once (VNNI); everywhere else the coordinates along the main
directions of the vectors do. The choice is by what the processor can do, never by a measurement, and the hits are the
same by either.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64
from safetensors import SafetensorError

from diptych.core.errors import UserError

TILE = 4096
"""Rows that a sieve takes in together; later rows are compared in full until a tile of them is there."""

BAND = 1e-5
"""More than float32 rounds a product of unit vectors by."""

Proposed = tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]
"""Pairs of query and row, by query."""


@dataclass(frozen=True, slots=True)
class SieveFacts:
    """What the catalog keeps of a sieve: its file, whose name tells the kind, and how many slots it covers."""

    file: str
    slots: int

    @classmethod
    def parse(cls, text: str) -> SieveFacts:
        """Read what `text` wrote."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Write as JSON."""
        return json.dumps(asdict(self))

    def quick(self) -> bool:
        """Say whether this sieve is of any use on this processor; codes are slower than no sieve without VNNI."""
        return quick_integers() or not self.file.startswith("codes-")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Say of a sieve's file that cannot be read what to do.

    Raises:
        FileNotFoundError: when there is none.
        UserError: when it holds something else.
    """
    file.stat()
    try:
        yield
    except (SafetensorError, TypeError):
        raise UserError(f"{file} cannot be read: run `optimize` on the index to make it anew") from None


@contextmanager
def writing() -> Iterator[None]:
    """Turn what safetensors raises into the OSError that it was, as of a full disk."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


class Sieve(ABC):
    """Something made of the first rows of a matrix of unit vectors that proposes which may be the nearest."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many rows it knows, whole tiles."""

    @abstractmethod
    def extended(self, vectors: Float32[np.ndarray, "n d"]) -> Sieve:
        """Take in the whole tiles of rows that are not known yet: those from `len(self)` on."""

    @abstractmethod
    def save(self, file: Path) -> None:
        """Write to a file.

        Raises:
            OSError: when the disk is full.
        """

    @abstractmethod
    def propose(
        self,
        query: Float32[np.ndarray, "q d"],
        vectors: Float32[np.ndarray, "n d"],
        allowed: Bool[np.ndarray, " n"],
        *,
        k: int,
    ) -> Proposed | None:
        """Return rows of which some are the k nearest of each query, for certain.

        Args:
            query: unit vectors, some hundreds at most.
            vectors: the rows that it knows.
            allowed: which of them may be found, at least k.
            k: how many are looked for.

        Returns:
            Pairs of query and row; None when they are so many that comparing everything is as good.
        """


@cache
def quick_integers() -> bool:
    """Tell whether this processor multiplies 8-bit integers faster than float32, and torch knows it."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and "avx512_vnni" in facts.read_text(encoding="utf-8", errors="replace")


def lengths(which: Int64[np.ndarray, " c"], count: int) -> list[int]:
    """Return where each query's pairs begin and, last, where they end."""
    return [int(place) for place in np.searchsorted(which, np.arange(count + 1))]
