"""Runs on scenes that others begin with: an image tower taught single objects, then one that learnt to describe scenes.

What was trained before, in the same folder, is not trained again.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import diptych
from diptych.train.experiment import SCORES

ONE_OBJECT = "scenes?pictures=20000&objects=1&distinct=no&captions=1"
DESCRIBED = "scenes:20000?captions=3"


def shapes(out: Path) -> Path:
    """Return a run that names single objects."""
    return _trained(out / "shapes", "fine_tune", ONE_OBJECT, "scenes-shapes")


def captions(out: Path) -> Path:
    """Return a run that describes scenes."""
    return _trained(out / "captions", "meshed_memory", DESCRIBED, "scenes-captions", begin=shapes(out))


def _trained(run: Path, system: str, data: str, recipe: str, *, begin: Path | None = None) -> Path:
    if not (run / SCORES).is_file():
        more = () if begin is None else ("--set", f"init={begin}")
        diptych("train", system, data, "--recipe", recipe, "--out", str(run), *more)
    return run
