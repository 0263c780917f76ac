"""Diptych: vision-language learning. Align images and texts in one space, then search, classify and serve.

model = diptych.load("runs/mine")
model.search("a dog runs through the snow", "photos.index")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diptych.predictor import Predictor, load

__all__ = ["Predictor", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for only then, so that `diptych --help` does not wait for torch."""
    if name in __all__:
        from diptych import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'diptych' has no attribute {name!r}")
