"""What is in the run folder already, and so where a run may begin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diptych import models, tasks
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.train.checkpoint import RECORD, WEIGHTS
from diptych.train.config import HARMLESS, TrainConfig
from diptych.train.files import read_json
from diptych.train.state import latest

COMPARED = ("system", "config", "spec", "data")
HIDDEN = ("workers",)
"""Settings of the data that a record leaves out, since they change nothing."""


def where_to_start(out: Path, record: Mapping[str, Any], config: TrainConfig, *, resume: bool = False) -> Path | None:
    """Decide from what is in `out` whether to begin, to go on, or to refuse; nothing is written.

    A run that was stopped goes on by itself when it is asked for again with equal settings. Call this early, before
    anything is put into `out`.

    Args:
        out: the run folder.
        record: system, its config, the spec and the data, as `train` will get them.
        config: how to train.
        resume: go on even where the run is finished or its settings of training were others.

    Returns:
        The state to go on from, or None to begin.

    Raises:
        UserError: when `out` holds a finished run, a run of other settings, or no run although one is to be resumed.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give another --out")
    old = read_json(out / RECORD) if (out / RECORD).is_file() else None
    if old is None:
        if resume:
            raise UserError(f"there is no run in {out} to go on with; leave --resume out to begin one")
        if (out / WEIGHTS).exists():
            raise UserError(f"{out} holds weights but no {RECORD}; give another --out")
        return None
    result = old.get("result")
    if result is not None and not resume:
        raise UserError(
            f"{out} holds a finished run ({result['steps']} steps{_scored(result)}); give another --out, "
            "or --resume to train on"
        )
    state = latest(out)
    if state is None:
        if resume or result is not None:
            raise UserError(f"{out} keeps no state to go on from; give another --out")
        return None
    _require_equal(out, old, {**record, "train": config.model_dump()}, resume=resume)
    return state


def _scored(result: Mapping[str, Any]) -> str:
    return "" if result.get("best") is None else f", best score {result['best']:.4g}"


def _require_equal(out: Path, old: Mapping[str, Any], new: Mapping[str, Any], *, resume: bool) -> None:
    parts = COMPARED if resume else (*COMPARED, "train")
    before = dict(_leaves(_completed({part: old.get(part) for part in parts}, str(old.get("system", "")))))
    after = dict(_leaves(json.loads(json.dumps({part: new.get(part) for part in parts}))))
    for name in [*before, *after]:
        if name in {f"train.{harmless}" for harmless in HARMLESS} or before.get(name) == after.get(name):
            continue
        hint = ", or --resume to go on with the new one" if name.startswith("train.") else ""
        raise UserError(
            f"{out} holds an unfinished run of other settings: {name} was {before.get(name)!r} and is now "
            f"{after.get(name)!r}; give the same, another --out{hint}"
        )


def _completed(parts: dict[str, Any], system: str) -> dict[str, Any]:
    """Give settings that came with a newer diptych their defaults, which are what the run was begun with."""
    kinds: dict[str, type[Config]] = {"train": TrainConfig}
    with suppress(UserError):  # a system that is gone is compared as it stands
        kinds["config"] = models.load(system).Config
        kinds["data"] = tasks.load(kinds["config"].learns).Settings
    for part, kind in kinds.items():
        if isinstance(parts.get(part), dict):
            defaults = kind().model_dump(mode="json")
            parts[part] = {name: value for name, value in defaults.items() if name not in HIDDEN} | parts[part]
    return parts


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested objects to dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
