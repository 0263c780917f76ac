"""Where things are kept that can be made again: under DIPTYCH_CACHE, or the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder for one kind of thing, made if need be.

    Args:
        name: the kind, such as "shards".
    """
    chosen = os.environ.get("DIPTYCH_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diptych"
    folder = base / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
