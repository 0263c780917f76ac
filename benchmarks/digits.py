"""Digits in two looks: half of MNIST as it is, the other half blended with coloured patterns drawn from a seed.

A changed digit is the absolute difference of its pixels and a pattern, as in MNIST-M, whose patterns are photographs;
here they are waves of random colour, direction and length, mostly darker than the strokes. No digit stands in both
domains.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diptych.data.source import SPLITS, Row, Source, hashed_splits

CHANGED, PLAIN = "changed", "plain"


class Digits(Source):
    """MNIST from its IDX files, the rows in turn plain and changed.

    Args:
        images: `...-images-idx3-ubyte.gz`.
        labels: `...-labels-idx1-ubyte.gz`.
        seed: of the patterns; where it is odd, the rows that are plain with an even one are changed, and others plain.
    """

    def __init__(self, images: Path, labels: Path, *, seed: int = 0) -> None:
        self.pixels, self.labels, self.seed = _idx(images), _idx(labels), seed
        self.problems = []
        self.name = f"digits: {len(self):,} pictures, every other one changed, seed {seed}"
        self._drawn: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        self._splits = hashed_splits(self._key(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, index: int) -> Row:
        """Return the digit as the label, and the domain."""
        fields = {"label": str(self.labels[index]), "domain": PLAIN if self._plain(index) else CHANGED}
        return Row(self._key(index), (), SPLITS[self._splits[index]], fields)

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Draw the picture once; the few thousand that are asked for are kept."""
        if index not in self._drawn:
            digit = np.repeat(self.pixels[index][:, :, None], 3, axis=2)
            random = np.random.default_rng((self.seed, index))
            self._drawn[index] = digit if self._plain(index) else changed(digit, random)
        return self._drawn[index]

    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the place of each row's split, decided by a hash."""
        return self._splits

    def fingerprint(self) -> str:
        """Name the files' size and the seed; the files themselves never change."""
        return f"digits-{len(self)}-{self.seed}-2"

    def _plain(self, index: int) -> bool:
        return (index + self.seed) % 2 == 0

    def _key(self, index: int) -> str:
        return f"digit-{index:05d}"


def changed(digit: UInt8[np.ndarray, "h w 3"], random: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Blend a picture with a pattern: the absolute difference of both."""
    height, width = digit.shape[:2]
    y, x = np.mgrid[:height, :width]
    pattern = np.zeros(digit.shape)
    for _ in range(4):
        turn, length, phase = random.uniform(0, np.pi), random.uniform(5, 40), random.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / length + phase)
        pattern += wave[:, :, None] * random.normal(0, 35, 3)
    pattern += random.uniform(0, 110, 3)
    found: UInt8[np.ndarray, "h w 3"] = np.abs(digit - np.clip(pattern, 0, 255)).astype(np.uint8)
    return found


def _idx(path: Path) -> UInt8[np.ndarray, "n ..."]:
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(tuple(int(n) for n in shape))
