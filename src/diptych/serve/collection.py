"""The collection that a server searches: an index, and the pictures it was made of. The only file that knows both."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float32

from diptych.core.errors import UserError
from diptych.data.formats import BadPicture, Picture
from diptych.data.images import size_of
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.predictor import Predictor
from diptych.search.index import Hit, Index, Item
from diptych.search.opening import open_index
from diptych.serve.pictures import shown
from diptych.serve.refusal import Refusal

_SIZES_KEPT, _THUMBNAIL_BYTES = 100_000, 64 * 2**20
_SAMPLE = 24


@dataclass(frozen=True, slots=True)
class Question:
    """What one request looks for."""

    vector: Float32[np.ndarray, " d"]
    k: int
    where: dict[str, Any]


class Collection:
    """An index opened for reading; used from several threads.

    Args:
        index: of vectors of the very model that serves.
        data: where its pictures are now; empty asks the index.
    """

    def __init__(self, index: Index, *, data: str = "") -> None:
        self.index, self._data = index, data
        self._sources: dict[str, Source | None] = {}
        self._sizes: OrderedDict[str, tuple[int, int] | None] = OrderedDict()
        self._small: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._small_bytes = 0
        self._lock = Lock()
        keys = index.keys()
        self.sample = [keys[place] for place in range(0, len(keys), max(1, -(-len(keys) // _SAMPLE)))]

    @classmethod
    def open(cls, address: str | Path, predictor: Predictor, *, data: str = "") -> Collection:
        """Open the index at an address.

        Raises:
            UserError: when there is none, or another model made it.
        """
        return cls(open_index(address, model=predictor.identity, read_only=True), data=data)

    def __len__(self) -> int:
        return self.index.count()

    def search(self, questions: Sequence[Question]) -> list[list[Hit] | Exception]:
        """Answer questions together, as far as their filters are the same."""
        found: list[list[Hit] | Exception] = [[]] * len(questions)
        groups: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            groups.setdefault(repr(question.where), []).append(place)
        for places in groups.values():
            asked = [questions[place] for place in places]
            vectors, most = np.stack([one.vector for one in asked]), max(one.k for one in asked)
            try:
                hits = self.index.search(vectors, k=most, where=asked[0].where or None)
            except UserError as error:
                for place in places:
                    found[place] = error
                continue
            for place, one, its in zip(places, asked, hits, strict=True):
                found[place] = its[: one.k]
        return found

    def item(self, key: str) -> Item:
        """Return an item of the index.

        Raises:
            Refusal: for a key that is not in it.
        """
        try:
            return self.index.get([key])[0]
        except UserError:
            raise Refusal(404, f"there is no picture {key!r} in the index") from None

    def samples(self) -> list[Hit]:
        """Return some pictures of the index, drawn evenly when it was opened, without those that were deleted since."""
        found = []
        for key in self.sample:
            try:
                item = self.item(key)
            except UserError:
                continue
            found.append(Hit(key, 0.0, item.metadata, item.text))
        return found

    def picture(self, key: str) -> Picture:
        """Return the picture of a key; nothing but pictures of the index can be had.

        Raises:
            UserError: for a key that is not in the index.
            BadPicture: when the picture is not where it was.
        """
        metadata = self.item(key).metadata
        source, row = self._source(self._data or str(metadata.get("_data", ""))), metadata.get("_row", -1)
        if source is None or not isinstance(row, int) or not 0 <= row < len(source) or source.row(row).key != key:
            raise BadPicture("the picture is not where it was when it was indexed", kind="missing")
        return source.picture(row)

    def small(self, key: str, *, side: int) -> bytes:
        """Return a JPEG of a picture, `side` pixels long at most; those that were asked for lately are kept.

        Raises:
            UserError: as `picture` does.
        """
        with self._lock:
            if (key, side) in self._small:
                self._small.move_to_end((key, side))
                return self._small[key, side]
        jpeg, height, width = shown(self.picture(key), side=side)
        with self._lock:
            self._keep_size(key, (height, width))
            self._small_bytes += len(jpeg) - len(self._small.pop((key, side), b""))
            self._small[key, side] = jpeg
            while self._small_bytes > _THUMBNAIL_BYTES and len(self._small) > 1:
                self._small_bytes -= len(self._small.popitem(last=False)[1])
        return jpeg

    def size(self, key: str) -> tuple[int, int] | None:
        """Return height and width of a picture, None when it cannot be read."""
        with self._lock:
            if key in self._sizes:
                return self._sizes[key]
        try:
            found = size_of(self.picture(key))
        except UserError:
            found = None
        with self._lock:
            self._keep_size(key, found)
        return found

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    def _keep_size(self, key: str, size: tuple[int, int] | None) -> None:
        self._sizes[key] = size
        while len(self._sizes) > _SIZES_KEPT:
            self._sizes.popitem(last=False)

    def _source(self, named: str) -> Source | None:
        with self._lock:
            if named not in self._sources:
                try:
                    self._sources[named] = open_data(named)
                except UserError:
                    self._sources[named] = None
            return self._sources[named]
