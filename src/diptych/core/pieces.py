"""Pieces: one thing or many, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def pieces(things: Any, size: int) -> Iterator[list[Any]]:
    """Cut a list into parts of `size`, the last one shorter; a single thing, as a string or an array, is a list of one.

    Returns:
        For 5 things and size 2: lists of 2, 2 and 1.
    """
    many = list(things) if isinstance(things, Sequence) and not isinstance(things, str | bytes) else [things]
    for start in range(0, len(many), size):
        yield many[start : start + size]
