"""Finds pictures that look the same: a 64-bit hash of each, and a search for hashes that differ in a few bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64, UInt8, UInt64

SIDE = 72  # of the small picture that is hashed: divides into 9 x 8 cells of grey and 8 x 8 of colour
BITS = 4  # hashes that differ in at most so many bits are compared
LEVELS = 8.0  # and are near when their 8 x 8 colours differ by no more grey levels than this in the mean,
CONTRAST = 0.1  # and by no more than this share of their own spread, or every sketch on white would be near
# Five bands, each of bits from all over the picture (a white margin would fill the bands of neighbouring bits): of
# four bits that differ, one band has none.
_BANDS = [np.uint64(sum(1 << bit for bit in range(band, 64, 5))) for band in range(5)]
_MOST = 500  # in a band that more pictures share, each is compared with so many of them, the next by hash
_CHUNK = 1 << 20


def look_hash(pixels: UInt8[np.ndarray, "3 72 72"]) -> tuple[np.uint64, UInt8[np.ndarray, " 192"]]:
    """Return which of 9 x 8 cells of a picture are brighter than their left neighbour, as bits, and its 8 x 8 colours.

    Neither changes much when a picture is resized, re-encoded or a little brighter.

    Reference: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    values = pixels.astype(np.float32)
    grey = values.mean(0)
    cells: Float[np.ndarray, "8 9"] = grey.reshape(8, 9, 9, 8).mean((1, 3))
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    colours = values.reshape(3, 8, 9, 8, 9).mean((2, 4)).round().astype(np.uint8).reshape(-1)
    return np.frombuffer(bits.tobytes(), dtype=np.uint64)[0], colours


def near_pairs(hashes: UInt64[np.ndarray, " n"], colours: UInt8[np.ndarray, "n 192"]) -> Int64[np.ndarray, "pairs 2"]:
    """Return pairs of pictures that look the same, smaller number first; a chain of them where many do.

    Hashes that differ in at most `BITS` bits agree in one of five bands, so that only those are compared that do:
    of a million pictures about a hundred each, not a million.
    """
    order = np.argsort(hashes, kind="stable")
    values, first = np.unique(hashes[order], return_index=True)
    same = [np.stack([order[:-1], order[1:]], 1)[hashes[order[1:]] == hashes[order[:-1]]]]
    ones = order[first]  # one picture for each distinct hash
    for band in _BANDS:
        for one, other in _agreeing(values & band):
            close = np.bitwise_count(values[one] ^ values[other]) <= BITS
            same.append(np.stack([ones[one[close]], ones[other[close]]], 1))
    pairs = np.unique(np.sort(np.concatenate(same), axis=1), axis=0)
    spread = colours.astype(np.float32).std(1)
    limit = np.minimum(LEVELS, CONTRAST * spread[pairs].min(1))
    near: Int64[np.ndarray, "pairs 2"] = pairs[_distance(colours, pairs) <= limit]
    return near


def groups(pairs: Int64[np.ndarray, "pairs 2"]) -> list[list[int]]:
    """Join pairs that share a member to groups, each in order, the largest first."""
    parent: dict[int, int] = {}

    def root(member: int) -> int:
        while parent.setdefault(member, member) != member:
            parent[member] = member = parent[parent[member]]
        return member

    for one, other in pairs.tolist():
        parent[max(root(one), root(other))] = min(root(one), root(other))
    found: dict[int, list[int]] = {}
    for member in sorted(parent):
        found.setdefault(root(member), []).append(member)
    return sorted(found.values(), key=lambda group: (-len(group), group[0]))


def _agreeing(band: UInt64[np.ndarray, " n"]) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    """Yield the pairs of places with the same value of a band: each with the next one, the second next, and so on."""
    order = np.argsort(band, kind="stable")
    _, starts, counts = np.unique(band[order], return_index=True, return_counts=True)
    for step in range(1, min(int(counts.max(initial=0)), _MOST + 1)):
        wide = counts > step
        lengths = counts[wide] - step
        for first in range(0, len(lengths), _CHUNK):
            part = slice(first, first + _CHUNK)
            offsets = np.repeat(starts[wide][part], lengths[part]) + _ramps(lengths[part])
            yield order[offsets], order[offsets + step]


def _ramps(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " total"]:
    ends = np.cumsum(lengths)
    ramps: Int64[np.ndarray, " total"] = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return ramps


def _distance(colours: UInt8[np.ndarray, "n 192"], pairs: Int64[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
    found = np.zeros(len(pairs))
    for first in range(0, len(pairs), _CHUNK // 64):
        part = pairs[first : first + _CHUNK // 64]
        one, other = (colours[part[:, side]].astype(np.float32) for side in (0, 1))
        shift = (one.mean(1) - other.mean(1))[:, None]  # one may be a little brighter
        found[first : first + len(part)] = np.abs(one - other - shift).mean(1)
    return found
