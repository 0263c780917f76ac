r"""Vectors in 8 bits: an exact search that reads a quarter of the bytes and multiplies integers.

Why nothing is missed: let R be a rotation, x a unit vector stored as Rx = s a + e, where a is of 8-bit numbers, and q a
query with Rq = t b + f. Then <q, x> = t s <b, a> + <t b, e> + <f, Rx>: t s <b, a> is wrong by at most t |b| |e| + |f|.
The lengths |e| and |f| are measured, not guessed. A row whose upper bound lies below the k-th largest lower bound
cannot be among the k nearest; what is left, some hundreds of a million, is compared in full precision. The rotation
spreads a large coordinate over all of them, so that the step s stays small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int8, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor

from diptych.nn.linear import linear
from diptych.search.sieve import BAND, TILE, Proposed, Sieve, lengths, reading, writing

_GROUP = 16
_GROUPS = TILE // _GROUP
_LEVELS = 127
_ROUNDING = 1e-5  # above all float32 rounding on the way, of products of unit vectors
_CANDIDATES = 1 << 21
_FORBIDDEN = torch.iinfo(torch.int32).min


@dataclass(frozen=True, slots=True)
class Codes(Sieve):
    """Rotated vectors in 8 bits, tile by tile; row c of a tile shares its step with the rows c + 256, c + 512 ..."""

    rotation: Float32[Tensor, "d d"]
    values: Int8[Tensor, "n d"]
    steps: Float32[Tensor, " g"]
    errors: Float32[Tensor, " g"]

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def empty(cls, dim: int) -> Codes:
        """Make codes of nothing, with a rotation."""
        random = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        rotation = torch.linalg.qr(random)[0].float().contiguous()
        return cls(rotation, torch.empty(0, dim, dtype=torch.int8), torch.empty(0), torch.empty(0))

    @classmethod
    def load(cls, file: Path) -> Codes:
        """Map codes from a file.

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
        parts = {"rotation": self.rotation, "values": self.values, "steps": self.steps, "errors": self.errors}
        with writing():
            save_file(parts, file)

    def extended(self, vectors: Float32[np.ndarray, "n d"]) -> Codes:
        """Take in the whole tiles of rows that are not known yet: those from `len(self)` on."""
        rows = len(vectors) // TILE * TILE
        values = torch.empty(rows, vectors.shape[1], dtype=torch.int8)
        values[: len(self)] = self.values
        steps, errors = [self.steps], [self.errors]
        for start in range(len(self), rows, TILE):
            some = linear(torch.from_numpy(vectors[start : start + TILE].copy()), self.rotation)
            groups = some.view(_GROUP, _GROUPS, -1)
            step = groups.abs().amax(2).amax(0) / _LEVELS
            whole = (groups / step[:, None]).round_()
            values[start : start + TILE] = whole.view_as(some).to(torch.int8)
            errors.append((groups - whole * step[:, None]).norm(dim=2).amax(0) * (1 + _ROUNDING))
            steps.append(step)
        return Codes(self.rotation, values, torch.cat(steps), torch.cat(errors))

    def propose(
        self,
        query: Float32[np.ndarray, "q d"],
        vectors: Float32[np.ndarray, "n d"],
        allowed: Bool[np.ndarray, " n"],
        *,
        k: int,
    ) -> Proposed | None:
        """Return rows of which some are the k nearest of each query, for certain; see `Sieve.propose`."""
        found = candidates(self, query, allowed, k=k, most=_CANDIDATES)
        return None if found is None else _nearly_best(query, vectors, *found, k=k)


class Query(NamedTuple):
    """Queries in 8 bits. All bounds are in units of `step`: `length` is |b|, `error` |f| with room for rounding."""

    values: Int8[Tensor, "q d"]
    step: Float32[Tensor, " q"]
    length: Float32[Tensor, " q"]
    error: Float32[Tensor, " q"]

    @classmethod
    def of(cls, query: Float32[np.ndarray, "q d"], rotation: Float32[Tensor, "d d"]) -> Query:
        """Rotate and round unit vectors."""
        turned = linear(torch.from_numpy(query), rotation)
        step = turned.abs().amax(1) / _LEVELS
        whole = (turned / step[:, None]).round_()
        error = (turned - whole * step[:, None]).norm(dim=1) + _ROUNDING
        return cls(whole.to(torch.int8), step, whole.norm(dim=1), error / step)


class _Found(NamedTuple):
    which: Int64[Tensor, " c"]
    row: Int64[Tensor, " c"]
    upper: Float32[Tensor, " c"]


def candidates(
    codes: Codes,
    query: Float32[np.ndarray, "q d"],
    allowed: Bool[np.ndarray, " n"],
    *,
    k: int,
    most: int,
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]] | None:
    """Return what may be among the k nearest of each query, by query; every row that is belongs to it.

    Args:
        codes: of the rows looked through.
        query: unit vectors, some hundreds at most.
        allowed: which rows may be found, at least k of them.
        k: how many are looked for, at most 256.
        most: how many candidates are too many; then None comes back.
    """
    asked = Query.of(query, codes.rotation)
    best = torch.full((k, len(query)), -torch.inf)
    found: list[_Found] = []
    count = 0
    for start, scores in _scores(codes, asked, allowed):
        groups = slice(start // _GROUP, (start + len(scores)) // _GROUP)
        steps, errors = codes.steps[groups], codes.errors[groups]
        highest = scores.view(-1, _GROUP, _GROUPS, len(query)).amax(1).view(-1, len(query)) * steps[:, None]
        best = _improve(best, highest, errors, asked)
        floor = best[-1] - 2 * asked.error
        above = highest > floor - asked.length * errors.max()
        some = _members(scores, above.nonzero(), steps, errors, asked.length, floor)
        if some is not None:
            found.append(some._replace(row=some.row + start))
            count += len(some.row)
        if count > most:
            found = [_above(found, floor)]
            count = len(found[0].row)
            if count > most:
                return None
    last = _above(found, best[-1] - 2 * asked.error)
    order = torch.argsort(last.which, stable=True)
    return last.which[order].numpy(), last.row[order].numpy()


def _scores(codes: Codes, asked: Query, allowed: Bool[np.ndarray, " n"]) -> Iterator[tuple[int, Tensor]]:
    """Yield products of integers, some tiles at a time: the first row, and (rows, queries); the buffer is reused."""
    rows = TILE * max(1, min(64, 256 // len(asked.values)))
    buffer = torch.empty(min(rows, len(codes)), len(asked.values), dtype=torch.int32)
    for start in range(0, len(codes), rows):
        part = codes.values[start : start + rows]
        scores = torch._int_mm(part, asked.values.T, out=buffer[: len(part)])
        forbidden = np.flatnonzero(~allowed[start : start + len(part)])
        if len(forbidden):
            scores[torch.from_numpy(forbidden)] = _FORBIDDEN
        yield start, scores


def _improve(best: Tensor, highest: Tensor, errors: Tensor, asked: Query) -> Tensor:
    """Put the lower bounds of groups among the k best of each query, where one belongs there."""
    touched = (highest.amax(0) > best[-1] + asked.length * errors.min()).nonzero()[:, 0]
    if len(touched) == 0:
        return best
    lower = highest[:, touched] - asked.length[touched] * errors[:, None]
    both = torch.cat([best[:, touched], lower]).T.contiguous()
    best[:, touched] = both.topk(len(best), dim=1).values.T
    return best


def _members(
    scores: Tensor, groups: Tensor, steps: Tensor, errors: Tensor, length: Tensor, floor: Tensor
) -> _Found | None:
    """Look into the groups that reach a floor, row by row."""
    if len(groups) == 0:
        return None
    group, which = groups.unbind(1)
    tile, place = group // _GROUPS, group % _GROUPS
    rows = (tile * TILE + place)[:, None] + _GROUPS * torch.arange(_GROUP)
    whole = scores[rows, which[:, None]]
    upper = whole * steps[group, None] + (length[which] * errors[group])[:, None]
    at, member = ((upper >= floor[which, None]) & (whole != _FORBIDDEN)).nonzero(as_tuple=True)
    return _Found(which[at], rows[at, member], upper[at, member])


def _above(found: list[_Found], floor: Tensor) -> _Found:
    which, row, upper = (torch.cat(parts) for parts in zip(*found, strict=True))
    keep = upper >= floor[which]
    return _Found(which[keep], row[keep], upper[keep])


def _nearly_best(
    query: Float32[np.ndarray, "q d"],
    vectors: Float32[np.ndarray, "n d"],
    which: Int64[np.ndarray, " c"],
    rows: Int64[np.ndarray, " c"],
    *,
    k: int,
) -> Proposed:
    """Keep the k best of each query in float32, and what comes so near that rounding might hide it."""
    edges = lengths(which, len(query))
    kept = []
    for one, first, last in zip(query, edges, edges[1:], strict=False):
        scores = vectors[rows[first:last]] @ one
        floor = np.partition(scores, len(scores) - k)[len(scores) - k] - BAND
        kept.append(first + np.flatnonzero(scores >= floor))
    best = np.concatenate(kept)
    return which[best], rows[best]
