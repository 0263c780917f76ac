"""The mean of a few numbers and how far it may be off: the 95 % interval of Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float | None]:
    """Return the mean and half the width of its confidence interval; None for the width of a single number.

    The seeds draw other shots from the same data, and the test pictures stay: the interval tells what the luck of
    the draw does, not what another test set would.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return mean, quantile((1 + level) / 2, degrees=len(values) - 1) * error


def quantile(chance: float, *, degrees: int) -> float:
    """Return t such that a Student variable stays below it with a chance in [0.5, 1); 2.776 for 0.975 and 4 degrees."""
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + _within(middle, degrees)) / 2 < chance else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """Return the chance that |t| < sqrt(degrees) tan(angle).

    Reference:
        Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    cosine, even = math.cos(angle), degrees % 2 == 0
    term, total = (1.0, 1.0) if even else (cosine, cosine)
    for place in range(2 if even else 3, degrees, 2):
        term *= cosine * cosine * (place - 1) / place
        total += term
    if even:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if degrees > 1 else 0.0))
