"""Many strings in two arrays: no Python object for each, so that threads and processes share them for nothing."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int, Int64, UInt8


class PackedStrings(Sequence[str]):
    """Strings as one blob of UTF-8 and the offset where each begins."""

    def __init__(self, blob: UInt8[np.ndarray, " bytes"], offsets: Int64[np.ndarray, " n_plus_1"]) -> None:
        self.blob, self.offsets = blob, offsets
        self._bytes, self._marks = blob.data, offsets.data  # several times quicker than numpy for one

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings in their order."""
        packer = Packer()
        packer.add(strings)
        return packer.packed()

    def take(self, order: Int[np.ndarray, " k"]) -> PackedStrings:
        """Return the strings at some places, in that order."""
        lengths = np.diff(self.offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][order] - offsets[:-1], lengths)
        return PackedStrings(self.blob[places], offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            blob, marks = self._bytes, self._marks
            return [str(blob[marks[at] : marks[at + 1]], "utf-8", "surrogatepass") for at in range(first, last, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return str(self._bytes[self._marks[index] : self._marks[index + 1]], "utf-8", "surrogatepass")

    def __reduce__(self) -> tuple[type[PackedStrings], tuple[np.ndarray, np.ndarray]]:
        return PackedStrings, (self.blob, self.offsets)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), 1000):
            yield from self[first : first + 1000]


class Packer:
    """Takes strings, each with the number of the row it belongs to."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._offsets = array("q", [0])
        self._owners = array("q")

    def add(self, strings: Iterable[str], owner: int = 0) -> None:
        """Append strings."""
        for string in strings:
            self._blob += string.encode("utf-8", "surrogatepass")
            self._offsets.append(len(self._blob))
            self._owners.append(owner)

    def packed(self) -> PackedStrings:
        """Return the strings in the order they came."""
        return PackedStrings(np.frombuffer(bytes(self._blob), dtype=np.uint8), np.array(self._offsets, dtype=np.int64))

    def grouped(self, owners: int) -> tuple[PackedStrings, Int64[np.ndarray, " n_plus_1"]]:
        """Return the strings by owner, in the order they came to each, and where each owner's begin."""
        owner = np.array(self._owners, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=owners))]).astype(np.int64)
        packed = self.packed()
        if (np.diff(owner) < 0).any():
            packed = packed.take(np.argsort(owner, kind="stable"))
        return packed, starts
