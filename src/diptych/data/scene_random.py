"""Random bits that are a pure function of a key, the same on every machine and with every version of NumPy.

NumPy promises the stream of its bit generators but not of the methods that draw from them, and a fresh generator for
each picture would cost as much as drawing the picture. SplitMix64 is a hash: any word of any stream, in any order.

Reference: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8, UInt64

T = TypeVar("T")
_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def key(*parts: int) -> int:
    """Hash some whole numbers into one of 64 bits."""
    value = 0
    for part in parts:
        value = (value ^ part) + _STEP & _MASK
        value = (value ^ value >> 30) * _FIRST & _MASK
        value = (value ^ value >> 27) * _SECOND & _MASK
        value ^= value >> 31
    return value


def words(stream: int, count: int) -> UInt64[np.ndarray, " n"]:
    """Return the first words of a stream, the same that `Dice` draws."""
    value = np.arange(1, count + 1, dtype=np.uint64)
    value *= np.uint64(_STEP)
    value += np.uint64(stream)
    value ^= value >> np.uint64(30)
    value *= np.uint64(_FIRST)
    value ^= value >> np.uint64(27)
    value *= np.uint64(_SECOND)
    value ^= value >> np.uint64(31)
    return value


def noise(stream: int, count: int) -> UInt8[np.ndarray, " n"]:
    """Return `count` random bytes, the same whichever way the machine orders the bytes of a word."""
    return words(stream, -(-count // 8)).astype("<u8", copy=False).view(np.uint8)[:count]


class Dice:
    """Draws the words of a stream one by one; in plain Python, faster than an array for the few that a scene needs."""

    def __init__(self, *parts: int) -> None:
        self._state = key(*parts)

    def word(self) -> int:
        """Draw a whole number of 64 bits."""
        self._state = value = self._state + _STEP & _MASK
        value = (value ^ value >> 30) * _FIRST & _MASK
        value = (value ^ value >> 27) * _SECOND & _MASK
        return value ^ value >> 31

    def below(self, end: int) -> int:
        """Draw a whole number in [0, end)."""
        return self.word() % end

    def between(self, low: int, high: int) -> int:
        """Draw a whole number in [low, high]."""
        return low + self.word() % (high - low + 1)

    def chance(self, percent: int) -> bool:
        """Be true so many times in a hundred."""
        return self.word() % 100 < percent

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of some choices."""
        return choices[self.word() % len(choices)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in items]
