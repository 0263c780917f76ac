r"""The coordinates of vectors along their main directions: an exact search that multiplies a few columns.

Why nothing is missed: let the columns of V be orthonormal, x = V u + r and q = V v + s with r and s at right angles to
all of V. Then <q, x> = <v, u> + <s, r> is at most <v, u> + |s| |r|, which is the inner product of (v, |s|) with
(u, |r|): one product of short vectors gives the upper bound. A row whose bound lies below k products already found
cannot be among the k nearest; what is left is compared in full. V holds the eigenvectors of the largest second moments
of the vectors, which makes |r| small; how many is chosen by counting what would be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from safetensors.numpy import load_file, save_file

from diptych.search.exact import exact
from diptych.search.sieve import BAND, TILE, Proposed, Sieve, lengths, reading, writing

_COSTS = {8: (1024, 2_000_000), 1 << 30: (30_000, 8_000_000)}
"""What a row that is left costs, and a query by itself, in products of single numbers on the way through all rows; for
up to so many queries at a time: a few of them wait for the memory, many keep the processor busy. Measured once (Zen 3).
"""

_WORTH = 0.6  # of the cost of comparing everything; above it there are no heads
_SQUARE = 1e-6  # above the rounding error of the square of a length; it only widens the bounds
_FEW = 64  # times k of each query are always compared
_NONE = np.float32(-2)  # below every product of unit vectors
_SAMPLE, _QUERIES = 16_384, 64


@dataclass(frozen=True, slots=True)
class Heads(Sieve):
    """Tiles of rows; in each a line per direction and, last, the lengths of what the directions leave out.

    `most` is the number of queries at a time from which on everything is compared as fast.
    """

    directions: Float32[np.ndarray, "d m"]
    tiles: Float32[np.ndarray, "t e r"]
    most: Int64[np.ndarray, ""]

    def __len__(self) -> int:
        return TILE * len(self.tiles)

    @classmethod
    def fitted(cls, vectors: Float32[np.ndarray, "n d"], alive: Bool[np.ndarray, " n"], *, k: int = 10) -> Heads | None:
        """Choose directions for vectors, and take in none; None when no choice would save much.

        Args:
            vectors: unit vectors.
            alive: which count.
            k: how many nearest will be looked for, about.
        """
        rng, some = np.random.default_rng(0), np.flatnonzero(alive)
        sample = vectors[np.sort(rng.choice(some, min(_SAMPLE, len(some)), replace=False))]
        directions = _main(sample)
        query = sample[rng.choice(len(sample), min(_QUERIES, len(sample)), replace=False)]
        # on the way the floor is lower than the k-th best: after a quarter of the rows it is the 4k-th or so
        floor = exact(query, vectors, alive, k=4 * k)[1][:, -1:]
        widths = _left(sample @ directions, query @ directions, floor)
        for most, (left, alone) in sorted(_COSTS.items(), reverse=True):
            cost, width = min((1 + width + left * share + alone / len(some), width) for width, share in widths)
            if cost <= _WORTH * vectors.shape[1]:
                inner = np.ascontiguousarray(directions[:, :width])
                return cls(inner, np.empty((0, width + 1, TILE), np.float32), np.array(most))
        return None

    @classmethod
    def load(cls, file: Path) -> Heads:
        """Read heads from a file.

        Raises:
            FileNotFoundError: when there is none.
            UserError: when it cannot be read.
        """
        with reading(file):
            return cls(**load_file(file))

    def save(self, file: Path) -> None:
        """Write to a file.

        Raises:
            OSError: when the disk is full.
        """
        with writing():
            save_file({"directions": self.directions, "tiles": self.tiles, "most": self.most}, file)

    def extended(self, vectors: Float32[np.ndarray, "n d"]) -> Heads:
        """Take in the whole tiles of rows that are not known yet."""
        known, count = len(self.tiles), len(vectors) // TILE
        tiles = np.empty((count, *self.tiles.shape[1:]), np.float32)
        tiles[:known] = self.tiles
        for place in range(known, count):
            tiles[place] = self.of(vectors[place * TILE : (place + 1) * TILE]).T
        return Heads(self.directions, tiles, self.most)

    def of(self, vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n e"]:
        """Return what is kept of unit vectors: the coordinates, and the length of the rest, never too short."""
        inner = vectors @ self.directions
        return np.concatenate([inner, _rest(inner)[:, None]], axis=1)

    def propose(
        self,
        query: Float32[np.ndarray, "q d"],
        vectors: Float32[np.ndarray, "n d"],
        allowed: Bool[np.ndarray, " n"],
        *,
        k: int,
    ) -> Proposed | None:
        """Return rows of which some are the k nearest of each query, for certain; see `Sieve.propose`."""
        if len(query) > self.most:
            return None
        heads, best = self.of(query), _Best(query, vectors, k=k)
        buffer = np.empty((len(query), TILE), np.float32)
        left = next(cost for most, (cost, _) in _COSTS.items() if len(query) <= most)
        rows, most = len(self) // 8, len(query) * (vectors.shape[1] - heads.shape[1]) / (2 * left)
        for group in _growing(len(self.tiles)):
            for tile in group:
                upper = np.dot(heads, self.tiles[tile], out=buffer)
                its = allowed[tile * TILE : (tile + 1) * TILE]
                if not its.all():
                    upper[:, ~its] = -np.inf
                best.see(upper, tile * TILE)
                rows += TILE
                if best.waiting + best.compared > max(_FEW * k * len(query), most * rows):
                    return None
            best.compare()
        return best.proposed()


class _Best:
    """The nearest rows found so far, and the rows that wait to be compared."""

    def __init__(self, query: Float32[np.ndarray, "q d"], vectors: Float32[np.ndarray, "n d"], *, k: int) -> None:
        self._query, self._vectors, self._k = query, vectors, k
        self._which, self._rows = np.empty(0, np.int64), np.empty(0, np.int64)
        self._scores = np.empty(0, np.float32)
        self._floor = np.full((len(query), 1), _NONE, np.float32)
        self._seen: list[Proposed] = []
        self.waiting = self.compared = 0

    def see(self, upper: Float32[np.ndarray, "q r"], start: int) -> None:
        """Note the rows of a tile whose upper bounds reach the floor."""
        if self._floor.min() == _NONE:
            self._begin(upper, start)
        places = np.flatnonzero(upper >= self._floor)
        which, column = np.divmod(places, upper.shape[1])
        self._seen.append((which, start + column))
        self.waiting += len(places)

    def compare(self) -> None:
        """Compare what waits, and raise the floor of each query to the k-th best found."""
        which, rows = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        order = np.argsort(which, kind="stable")
        which, rows = which[order], rows[order]
        scores, edges = np.empty(len(rows), np.float32), lengths(which, len(self._query))
        for one, first, last in zip(self._query, edges, edges[1:], strict=False):
            if first < last:
                np.dot(self._vectors[rows[first:last]], one, out=scores[first:last])
        self._keep(np.append(self._which, which), np.append(self._rows, rows), np.append(self._scores, scores))
        self.compared, self.waiting, self._seen = self.compared + self.waiting, 0, []

    def proposed(self) -> Proposed:
        """Return what may be among the k best, rounding considered."""
        return self._which, self._rows

    def _begin(self, upper: Float32[np.ndarray, "q r"], start: int) -> None:
        """Find a first floor: the least of the products with the k rows of the highest bounds."""
        k = min(self._k, upper.shape[1])
        first = np.argpartition(upper, -k, axis=1)[:, -k:]
        enough = (np.take_along_axis(upper, first, axis=1) > _NONE).sum(1) >= self._k
        for place in np.flatnonzero(enough & (self._floor[:, 0] == _NONE)).tolist():
            self._floor[place] = (self._vectors[start + first[place]] @ self._query[place]).min() - 2 * BAND

    def _keep(
        self, which: Int64[np.ndarray, " c"], rows: Int64[np.ndarray, " c"], scores: Float32[np.ndarray, " c"]
    ) -> None:
        order = np.lexsort((-scores, which))
        which, rows, scores = which[order], rows[order], scores[order]
        edges = np.array(lengths(which, len(self._query)))
        last = edges[:-1] + self._k - 1
        full = np.flatnonzero(last < edges[1:])
        # BAND for the rounding of these products, BAND for that of the bounds
        self._floor[full, 0] = np.maximum(self._floor[full, 0], scores[last[full]] - np.float32(2 * BAND))
        good = scores >= self._floor[which, 0]
        self._which, self._rows, self._scores = which[good], rows[good], scores[good]


def _growing(count: int) -> Iterator[range]:
    """Part tiles into groups of growing size, each drawn from all over, so that the floor rises early."""
    step = 1 << max(0, count - 1).bit_length()
    yield range(0, count, step)
    while step > 1:
        half = step // 2
        if half < count:
            yield range(half, count, step)
        step = half


def _main(sample: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "d d"]:
    """Return the eigenvectors of the second moments, the largest first."""
    wide = sample.astype(np.float64)
    _, directions = np.linalg.eigh(wide.T @ wide)
    return np.ascontiguousarray(directions[:, ::-1]).astype(np.float32)


def _rest(inner: Float32[np.ndarray, "n m"]) -> Float32[np.ndarray, " n"]:
    """Return the length of what is left of unit vectors outside their coordinates."""
    square: Float64[np.ndarray, " n"] = 1 - np.einsum("nm,nm->n", inner, inner, dtype=np.float64)
    rest: Float32[np.ndarray, " n"] = np.sqrt(np.maximum(square, 0) + _SQUARE).astype(np.float32)
    return rest


def _left(
    rows: Float32[np.ndarray, "n d"], query: Float32[np.ndarray, "q d"], floor: Float32[np.ndarray, "q 1"]
) -> list[tuple[int, float]]:
    """Return numbers of directions, and the share of the rows whose bounds reach the floor with so many."""
    upper, shares = np.zeros((len(query), len(rows)), np.float32), []
    for width in range(16, rows.shape[1], 16):
        part = slice(width - 16, width)
        upper += query[:, part] @ rows[:, part].T
        bound = upper + _rest(query[:, :width])[:, None] * _rest(rows[:, :width])
        shares.append((width, float((bound >= floor).mean())))
        if width > _WORTH * rows.shape[1]:
            break
    return shares
