"""Source: pictures with their captions, by number; what every front door of the data opens to."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, Int64, UInt8

from diptych.core.errors import UserError, unknown

SPLITS = ("train", "dev", "test")
_ALIASES = {"val": "dev", "valid": "dev", "validation": "dev", "devel": "dev", "development": "dev", "eval": "dev"}
_ALIASES |= {"training": "train", "testing": "test", "restval": "train"}  # restval: Karpathy's name for more of train


@dataclass(frozen=True, slots=True)
class Row:
    """One picture: its key, all its captions, its split, and every other column as plain JSON values.

    A column that differs between the lines about one picture is a list here, one value for each line, in every row.
    """

    key: str
    captions: tuple[str, ...]
    split: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was left out: where it stands (a file and line, or a key) and what is wrong with it.

    What was only noticed and stays in the data is `kept`.
    """

    where: str
    what: str
    kept: bool = False


class Source(ABC):
    """Pictures with captions, in a fixed order, read at random and from several threads at once.

    `name` says what was detected and how much of it, for people. `problems` lists what was left out and why.
    """

    name: str
    problems: list[Problem]

    @abstractmethod
    def __len__(self) -> int:
        """Count the pictures."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return everything but the pixels."""

    @abstractmethod
    def picture(self, index: int) -> bytes | UInt8[np.ndarray, "h w 3"]:
        """Return the picture, as the bytes of its file or as pixels.

        Raises:
            BadPicture: when its file cannot be read.
        """

    @abstractmethod
    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the place in `SPLITS` of each row's split."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that changes when the pictures, their order or their captions do, for caches."""

    def picture_fingerprint(self) -> str:
        """Return a hash that changes when the pictures or their order do; captions may change without it."""
        return self.fingerprint()

    def rows(self, split: str = "all") -> Int64[np.ndarray, " n"]:
        """Return the numbers of the rows of a split, in order.

        Args:
            split: "train", "dev", "test" (or another usual name of these, as "val"), or "all".

        Raises:
            UserError: for an unknown split.
        """
        if split == "all":
            return np.arange(len(self), dtype=np.int64)
        known = split_name(split)
        if known is None:
            raise unknown("split", split, (*SPLITS, "all"))
        return np.flatnonzero(self.splits() == SPLITS.index(known)).astype(np.int64)

    def texts(self, rows: Int[np.ndarray, " n"] | Sequence[int]) -> Iterator[str]:
        """Yield every caption of the rows, in order."""
        for index in rows:
            yield from self.row(int(index)).captions

    def need_captions(self) -> None:
        """Check that some row has a caption.

        Raises:
            UserError: when none has.
        """
        if not any(self.row(index).captions for index in range(len(self))):
            raise UserError(f"{self.name} has no captions; name their column with --caption-column")


def split_name(given: str) -> str | None:
    """Return "train", "dev" or "test" for any usual name of a split, None for another word."""
    name = given.strip().lower()
    name = _ALIASES.get(name, name)
    return name if name in SPLITS else None


def hashed_splits(keys: Iterable[str]) -> UInt8[np.ndarray, " n"]:
    """Split by a hash of each key: 80 % train, 10 % dev, 10 % test, the same on every machine.

    A new picture never moves another one, except in data so small that dev or test would be empty: they then get the
    nearest picture each, as long as there are three.
    """
    place = np.array([_place(key) for key in keys], dtype=np.float64)
    splits = np.digitize(place, (0.8, 0.9)).astype(np.uint8)
    order = np.argsort(place, kind="stable")
    if len(order) >= 3 and not (splits == 2).any():
        splits[order[-1]] = 2
    if len(order) >= 3 and not (splits == 1).any():
        splits[order[np.flatnonzero(splits[order] != 2)[-1]]] = 1
    return splits


def _place(key: str) -> float:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
