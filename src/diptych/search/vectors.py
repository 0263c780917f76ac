"""The vector side of an index on disk: one append-only file of float32 rows, read through a memory map."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from diptych.search.faults import damaged


class VectorFile:
    """Rows of a fixed length; a row is named by its slot, its place in the file."""

    def __init__(self, folder: Path, generation: int, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self.path = folder / f"vectors-{generation}.f32"

    def create(self) -> None:
        """Make the file, empty."""
        self.path.open("wb").close()
        sync_folder(self._folder)

    def write(self, slot: int, rows: Float32[np.ndarray, "n d"]) -> None:
        """Put rows from a slot on; they count only once `sync` has returned."""
        with self.path.open("r+b", buffering=0) as file:
            file.seek(slot * self._dim * 4)
            left = memoryview(rows.tobytes())
            while left:
                left = left[file.write(left) :]

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def cut(self, slots: int) -> None:
        """Drop what a write that was cut off left behind the last slot."""
        if self.path.stat().st_size > slots * self._dim * 4:
            os.truncate(self.path, slots * self._dim * 4)

    def rows(self, slots: int) -> Float32[np.ndarray, "n d"]:
        """Map the first rows into memory, read-only.

        Raises:
            FileNotFoundError: when there is no file.
            UserError: when the file is shorter than that.
        """
        there = self.path.stat().st_size // (self._dim * 4)
        if there < slots:
            raise damaged(self._folder, f"{self.path.name} holds {there:,} of {slots:,} vectors")
        if slots == 0:
            return np.empty((0, self._dim), dtype=np.float32)
        return np.asarray(np.memmap(self.path, dtype=np.float32, mode="r", shape=(slots, self._dim)))


def sync_folder(folder: Path) -> None:
    """Make new and removed names in a folder last; where the system cannot, it does so by itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
