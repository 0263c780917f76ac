"""Source: pictures with their captions, by number; what every front door of the data opens to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Row:
    """One picture: its key, all its captions, its split, and every other column as plain JSON values."""

    key: str
    captions: tuple[str, ...]
    split: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was left out: where it stands (a file and line, or a key) and what is wrong with it."""

    where: str
    what: str


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
        """Return the picture, as the bytes of its file or as pixels."""

    @abstractmethod
    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the place in `SPLITS` of each row's split."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that changes when the pictures or their order do, for caches."""
