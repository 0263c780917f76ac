"""View: another source seen differently, with fewer rows or other captions; pictures and splits stay what they are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Int64, UInt8

from diptych.data.source import Row, Source


class View(Source, ABC):
    """Some rows of a source, each perhaps changed.

    Args:
        source: what is looked at.
        how: what is different, for people and for the fingerprint.
        kept: numbers of the source's rows that are there; all when None.
    """

    def __init__(self, source: Source, *, how: str, kept: Int64[np.ndarray, " n"] | None = None) -> None:
        self.source, self.how = source, how
        self.kept = np.arange(len(source), dtype=np.int64) if kept is None else kept
        self.name, self.problems = f"{source.name}; {how}", source.problems

    @abstractmethod
    def change(self, row: Row, place: int) -> Row:
        """Return a row as it is seen here; `place` is its number in the source looked at."""

    def __len__(self) -> int:
        return len(self.kept)

    def row(self, index: int) -> Row:
        """Return everything but the pixels."""
        place = int(self.kept[index])
        return self.change(self.source.row(place), place)

    def picture(self, index: int) -> bytes | UInt8[np.ndarray, "h w 3"]:
        """Return the picture, as the source does."""
        return self.source.picture(int(self.kept[index]))

    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the place in `SPLITS` of each row's split."""
        splits: UInt8[np.ndarray, " n"] = self.source.splits()[self.kept]
        return splits

    def picture_fingerprint(self) -> str:
        """Return the source's where all its pictures are there in order, so that what is cached of them is found."""
        whole = np.array_equal(self.kept, np.arange(len(self.source)))
        return self.source.picture_fingerprint() if whole else self.fingerprint()

    def fingerprint(self) -> str:
        """Return a hash of the source's and of what is different."""
        digest = hashlib.blake2b(f"{self.source.fingerprint()} {self.how}".encode(), digest_size=16)
        digest.update(self.kept.tobytes())
        return digest.hexdigest()
