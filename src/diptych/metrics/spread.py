"""Spread: the mean of some repeated measurements, how far they lie apart, and how sure a difference is.

Reference:
    Student 1908, The probable error of a mean; the sums for whole degrees of freedom: Abramowitz and Stegun 1964,
    26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from diptych.core.errors import UserError

LOWER = ("loss", "rank", "perplexity", "fid", "kid", "error")
"""Last words of the names of scores of which less is better."""

COUNTS = ("texts", "pairs", "pictures", "questions", "captions", "classes", "examples")
"""Names of what is no score, but how much was scored."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements: their mean, standard deviation (n - 1; None for a single one) and number."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Sum up measurements.

        Raises:
            UserError: when there are none.
        """
        known = list(values)
        if not known:
            raise UserError("there is nothing to take the mean of")
        if not all(math.isfinite(value) for value in known):
            return cls(math.nan, None, len(known))
        return cls(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference of pairs of measurements, with its confidence interval; None from a single pair."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out; two pairs are never enough, as they may agree by chance."""
        return self.count > 2 and self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def difference(first: Sequence[float], other: Sequence[float], *, level: float = 0.95) -> Difference:
    """Compare measurements that belong together in pairs, as of the same seed.

    Args:
        first: measurements of one.
        other: measurements of the other, in the same order.
        level: how often such an interval holds the true difference, in (0, 1).

    Returns:
        `other` less `first`: the mean, and the interval of Student's t around it.

    Raises:
        UserError: when the numbers of measurements differ or are zero.
    """
    if len(first) != len(other):
        raise UserError(f"paired measurements must be as many on both sides, not {len(first)} and {len(other)}")
    found = Spread.of(b - a for a, b in zip(first, other, strict=True))
    if found.deviation is None:
        return Difference(found.mean, None, None, found.count)
    half = t_quantile(found.count - 1, level=level) * found.deviation / math.sqrt(found.count)
    return Difference(found.mean, found.mean - half, found.mean + half, found.count)


def t_quantile(degrees: int, *, level: float = 0.95) -> float:
    """Return the t that a Student variable stays within, on both sides, with probability `level`.

    Args:
        degrees: of freedom, at least 1.
        level: in (0, 1).

    Returns:
        12.706 for one degree and 0.95; towards 1.960 for many.

    Raises:
        UserError: for no degree of freedom or a level outside (0, 1).
    """
    if degrees < 1 or not 0 < level < 1:
        raise UserError(f"Student's t needs a degree of freedom and a level in (0, 1), not {degrees} and {level}")
    low, high = 0.0, math.pi / 2
    while high - low > 1e-14:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """Return the probability of staying within sqrt(degrees) * tan(angle), by its finite sum."""
    cosine, odd = math.cos(angle), degrees % 2
    total, term = 0.0, cosine if odd else 1.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * total)


def lower_is_better(name: str) -> bool:
    """Tell from the last word of a score's flat name whether less of it is better."""
    return name.rpartition("/")[2].rpartition("_")[2] in LOWER and not name.startswith("-")


def is_count(name: str) -> bool:
    """Tell whether a flat name counts what was scored, rather than being a score."""
    return name.rpartition("/")[2] in COUNTS


def clear_winner(found: dict[str, Spread], *, lower: bool = False) -> str | None:
    """Return who is better than everybody else by more than the spread of either; None when nobody is.

    Args:
        found: measurements of each; single ones have no spread, so they win nothing.
        lower: whether less is better.
    """
    known = {name: spread for name, spread in found.items() if spread.deviation is not None}
    if len(known) < 2:
        return None
    order = sorted(known, key=lambda name: known[name].mean, reverse=not lower)
    best = known[order[0]]
    for name in order[1:]:
        other = known[name]
        if abs(best.mean - other.mean) <= max(best.deviation or 0.0, other.deviation or 0.0):
            return None
    return order[0]
