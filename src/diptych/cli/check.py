"""The verb `check`: what is wrong with some data, before any training."""

from __future__ import annotations


def check() -> None:
    """Look."""
