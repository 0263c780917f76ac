"""Table: a packed source of pictures with captions, and the builder through which every front door fills it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from diptych.core.errors import UserError
from diptych.data.packed import PackedStrings, Packer
from diptych.data.places import Places
from diptych.data.source import SPLITS, Problem, Row, Source, hashed_splits, split_name

_UNSAID = 255


class Table(Source):
    """Keys, captions, splits and other columns in a few arrays; pictures from wherever they lie."""

    def __init__(
        self,
        name: str,
        problems: list[Problem],
        *,
        keys: PackedStrings,
        captions: PackedStrings,
        caption_starts: Int64[np.ndarray, " n_plus_1"],
        split: UInt8[np.ndarray, " n"],
        fields: PackedStrings,
        places: Places,
    ) -> None:
        self.name, self.problems = name, problems
        self.keys, self.captions, self.caption_starts = keys, captions, caption_starts
        self.split, self.fields, self.places = split, fields, places

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, index: int) -> Row:
        """Unpack a row."""
        captions = self.captions[int(self.caption_starts[index]) : int(self.caption_starts[index + 1])]
        fields = self.fields[index]
        return Row(
            key=self.keys[index],
            captions=tuple(captions),
            split=SPLITS[self.split[index]],
            fields=json.loads(fields) if fields else {},
        )

    def picture(self, index: int) -> bytes:
        """Read a picture from its place."""
        return self.places.read(index)

    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the column of splits."""
        return self.split

    def fingerprint(self) -> str:
        """Hash keys, captions and what tells of a change of the pictures."""
        digest = hashlib.blake2b(self.places.identity(), digest_size=16)
        for array in (self.keys.blob, self.keys.offsets, self.captions.blob, self.captions.offsets):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        digest.update(np.ascontiguousarray(self.caption_starts).view(np.uint8).data)
        return digest.hexdigest()


class Builder:
    """Collects records, merges those about one picture, and notes what has to be left out.

    Args:
        kind: what is read, for people, as "csv file pairs.csv".
        captioned: whether a picture without a caption is a problem, unless it has a label.
    """

    def __init__(self, kind: str, *, captioned: bool) -> None:
        self.kind, self.captioned = kind, captioned
        self.problems: list[Problem] = []
        self.note = ""
        self._rows: dict[str, int] = {}
        self._split = bytearray()
        self._captions, self._fields = Packer(), Packer()

    def problem(self, where: str, what: str, *, kept: bool = False) -> None:
        """Note what was left out, or was only noticed and is kept."""
        self.problems.append(Problem(where, what, kept))

    def add(
        self,
        key: str,
        captions: Sequence[str],
        *,
        where: str,
        split: str | None = None,
        fields: Mapping[str, Any] | None = None,
        find: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take a record.

        Args:
            key: names the picture; records with the same one are merged.
            captions: their texts, perhaps empty ones.
            where: the record's place, for problems.
            split: its split as the data call it, None when they do not say.
            fields: every other column.
            find: called for a new picture; it finds and keeps its place, or notes a problem and returns False.
        """
        texts = [" ".join(text.split()) for text in captions]
        full = [text for text in texts if text]
        told = bool(full) or (fields is not None and fields.get("label") not in (None, ""))
        if self.captioned and (len(full) < len(texts) > 1 or not told):
            self.problem(where, "the caption is empty" if len(texts) < 2 else "one of the captions is empty")
        if self.captioned and not told:
            return
        number = _UNSAID if split is None or not split.strip() else self._split_number(split, where)
        if number is None:
            return
        row = self._rows.get(key)
        if row is None:
            if not find():
                return
            row = self._rows[key] = len(self._rows)
            self._split.append(number)
        elif self._split[row] == _UNSAID:
            self._split[row] = number
        elif number not in (_UNSAID, self._split[row]):
            what = f"the split is {split!r}, but an earlier line puts {key} elsewhere; that one counts"
            self.problem(where, what, kept=True)
        self._captions.add(full, row)
        self._fields.add([json.dumps(fields, ensure_ascii=False, default=str) if fields else ""], row)

    def table(self, places: Places) -> Table:
        """Finish.

        Raises:
            UserError: when nothing is left to read.
        """
        count = len(self._rows)
        if not count:
            first = f"; the first problem: {self.problems[0].where}: {self.problems[0].what}" if self.problems else ""
            raise UserError(f"{self.kind} holds no picture that can be used{first}")
        keys = PackedStrings.pack(self._rows)
        captions, starts = self._captions.grouped(count)
        self._note_repeats(keys, captions, starts)
        split, how = _complete(np.frombuffer(bytes(self._split), dtype=np.uint8).copy(), keys)
        sizes = ", ".join(f"{name} {int((split == place).sum()):,}" for place, name in enumerate(SPLITS))
        name = f"{self.kind}: {count:,} pictures, {len(captions):,} captions ({self.note}{sizes}{how})"
        return Table(
            name,
            self.problems,
            keys=keys,
            captions=captions,
            caption_starts=starts,
            split=split,
            fields=_merge_fields(*self._fields.grouped(count)),
            places=places,
        )

    def _split_number(self, split: str, where: str) -> int | None:
        known = split_name(split)
        if known is None:
            self.problem(where, f"the split {split!r} is none of {', '.join(SPLITS)}")
            return None
        return SPLITS.index(known)

    def _note_repeats(
        self, keys: PackedStrings, captions: PackedStrings, starts: Int64[np.ndarray, " n_plus_1"]
    ) -> None:
        for row in np.flatnonzero(np.diff(starts) > 1).tolist():
            texts = captions[int(starts[row]) : int(starts[row + 1])]
            if len(set(texts)) < len(texts):
                twice = next(text for text in texts if texts.count(text) > 1)
                self.problem(keys[row], f"the same caption stands twice and is kept twice: {twice[:60]!r}", kept=True)


def _complete(split: UInt8[np.ndarray, " n"], keys: PackedStrings) -> tuple[UInt8[np.ndarray, " n"], str]:
    """Fill in what the data do not say, and tell how: by a hash of the key, never by chance."""
    unsaid = split == _UNSAID
    said = set(np.unique(split[~unsaid]).tolist())
    if said <= {0}:
        return hashed_splits(keys), "; split by a hash of the key"
    how = ""
    if unsaid.any():
        split[unsaid] = hashed_splits(keys[int(row)] for row in np.flatnonzero(unsaid))
        how = f"; {int(unsaid.sum()):,} without a split were given one by a hash of the key"
    train = np.flatnonzero(split == 0)
    if not (split == 1).any() and len(train) > 2:
        parts = hashed_splits(keys[int(row)] for row in train)
        split[train[parts == 1]] = 1
        how += "; a tenth of train serves as dev"
    return split, how


def _merge_fields(lines: PackedStrings, starts: Int64[np.ndarray, " n_plus_1"]) -> PackedStrings:
    """Make one object of all lines about a picture: a column that differs within any of them becomes a list in all."""
    counts = np.diff(starts)
    if (counts == 1).all():
        return lines
    varying: set[str] = set()
    for row in np.flatnonzero(counts > 1).tolist():
        first, *rest = (_object(text) for text in lines[int(starts[row]) : int(starts[row + 1])])
        for other in rest:
            varying |= {name for name in first.keys() | other.keys() if first.get(name) != other.get(name)}
    packer = Packer()
    for row in range(len(counts)):
        objects = [_object(text) for text in lines[int(starts[row]) : int(starts[row + 1])]]
        merged = {name: value for name, value in objects[0].items() if name not in varying}
        merged |= {name: [one.get(name) for one in objects] for name in sorted(varying)}
        packer.add([json.dumps(merged, ensure_ascii=False) if merged else ""])
    return packer.packed()


def _object(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
