"""Where the pictures of a table lie: in files of their own, in parts of larger files, or in a column in memory."""

from __future__ import annotations

import hashlib
import mmap
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Int

from diptych.data.images import BadPicture
from diptych.data.packed import PackedStrings

MAPS_OPEN = 128  # shards mapped at once; each holds a file descriptor


class Places(ABC):
    """Gives the bytes of a picture by its number, from several threads at once."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the pictures."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Return the bytes of a picture's file.

        Raises:
            BadPicture: when they cannot be read.
        """

    @abstractmethod
    def identity(self) -> bytes:
        """Return a hash that changes when the pictures do, without reading them all."""


def file_stamp(path: Path) -> str:
    """Return name, size and time of a file: what changes when its content does."""
    status = path.stat()
    return f"{path.name}|{status.st_size}|{status.st_mtime_ns}"


def _hash(*parts: bytes | np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).view(np.uint8).data)
    return digest.digest()


class Files(Places):
    """Each picture is a file."""

    def __init__(self, paths: PackedStrings, stamps: Int[np.ndarray, "n 2"]) -> None:
        self.paths, self.stamps = paths, stamps

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> Path:
        """Return the file of a picture."""
        return Path(self.paths[index])

    def read(self, index: int) -> bytes:
        """Read the file."""
        try:
            return self.path(index).read_bytes()
        except OSError as error:
            raise BadPicture(f"the file cannot be read: {error.strerror or error}", kind="missing") from None

    def identity(self) -> bytes:
        """Hash the size and time of each file."""
        return _hash(self.stamps.reshape(-1))


class Parts(Places):
    """Each picture is a part of a larger file, such as a tar shard, mapped into memory when first needed."""

    def __init__(self, files: Sequence[Path], spans: Int[np.ndarray, "n 3"]) -> None:
        self.files, self.spans = list(files), spans
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.spans)

    def read(self, index: int) -> bytes:
        """Copy the part out of the map of its file."""
        file, start, size = (int(value) for value in self.spans[index])
        return self.part(file, start, size)

    def part(self, file: int, start: int, size: int) -> bytes:
        """Copy any part of one of the files."""
        return self._map(file)[start : start + size] if size else b""

    def identity(self) -> bytes:
        """Hash the larger files' stamps and the places in them."""
        return _hash(*(file_stamp(path).encode() for path in self.files), self.spans.reshape(-1))

    def _map(self, file: int) -> mmap.mmap:
        with self._lock:
            if file not in self._maps:
                try:
                    with self.files[file].open("rb") as stream:
                        self._maps[file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                except OSError as error:
                    raise BadPicture(
                        f"{self.files[file]} cannot be read: {error.strerror or error}", kind="missing"
                    ) from None
                while len(self._maps) > MAPS_OPEN:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(file)
            return self._maps[file]

    def __getstate__(self) -> dict[str, object]:
        return {"files": self.files, "spans": self.spans}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._maps, self._lock = OrderedDict(), Lock()


class Cells(Places):
    """Each picture is a value of a column, fetched by its number."""

    def __init__(self, fetch: Callable[[int], bytes], rows: Int[np.ndarray, " n"], stamp: str) -> None:
        self.fetch, self.rows, self.stamp = fetch, rows, stamp

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> bytes:
        """Fetch the value."""
        return self.fetch(int(self.rows[index]))

    def identity(self) -> bytes:
        """Hash the stamp of the whole and the rows."""
        return _hash(self.stamp.encode(), self.rows)
