"""Outcome: what one run came to, in scores and in cost, as it stands beside the run's weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diptych.core.model import Model
from diptych.train.checkpoint import RECORD, WEIGHTS
from diptych.train.config import HARMLESS
from diptych.train.files import read_json, write_json
from diptych.train.log import METRICS
from diptych.train.plan import Plan
from diptych.train.state import RESUME

OUTCOME = "outcome.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one run.

    Args:
        seed: of the run.
        scores: by flat names, on `split`.
        split: on which it was scored.
        monitor: the score that chose the weights.
        parameters: numbers in the model; `trained` of them moved.
        trained: how many of them learn.
        seconds: of training, scores on dev included, pauses left out.
        rate: examples a second while learning; None without a log.
        memory: largest number of bytes during training; None when it was not measured.
        steps: optimizer steps.
        device: where it was trained.
        beside: runs that were trained at the same time, this one included.
        failed: why there are no scores; empty when there are.
    """

    seed: int
    scores: dict[str, float] = field(default_factory=dict)
    split: str = ""
    monitor: str = ""
    parameters: int = 0
    trained: int = 0
    seconds: float = 0.0
    rate: float | None = None
    memory: int | None = None
    steps: int = 0
    device: str = ""
    beside: int = 1
    failed: str = ""

    def write(self, folder: Path) -> None:
        """Put it into the run folder, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / OUTCOME, asdict(self))


def read_outcome(folder: Path) -> Outcome | None:
    """Return what a run came to; None when it has not ended."""
    return Outcome(**read_json(folder / OUTCOME)) if (folder / OUTCOME).is_file() else None


def parameters(model: Model) -> tuple[int, int]:
    """Count a model's parameters, all of them and those that learn."""
    every = list(model.parameters())
    return sum(one.numel() for one in every), sum(one.numel() for one in every if one.requires_grad)


def mean_rate(folder: Path) -> float | None:
    """Return the examples a second of a run while it learnt, from its log: all examples over all seconds."""
    steps, seconds, before = 0, 0.0, 0
    for line in history(folder):
        if "rate" in line:
            taken, before = line["step"] - before, line["step"]
            steps, seconds = steps + taken, seconds + taken / max(line["rate"], 1e-9)
    return steps / seconds if seconds > 0 else None


def history(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's log."""
    path = folder / METRICS
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def changed_setting(folder: Path, plan: Plan, fingerprint: str) -> str:
    """Compare a run folder with the plan it should have been made by.

    Args:
        folder: of a run, or nothing.
        plan: for that run.
        fingerprint: of the data.

    Returns:
        Empty when they agree or nothing is there to lose, else such as `train.epochs was 4.0 and is now 8.0`.
    """
    if not (folder / RECORD).is_file() or not ((folder / WEIGHTS).is_file() or (folder / RESUME).is_dir()):
        return ""
    old = read_json(folder / RECORD)
    if old.get("system") != plan.system:
        return f"system was {old.get('system')} and is now {plan.system}"
    if old.get("data", {}).get("fingerprint") != fingerprint:
        return f"the data was {old.get('data', {}).get('source', 'another')} and is now another"
    for section, name in (("model", "config"), ("data", "data"), ("train", "train")):
        new = getattr(plan, section).model_dump(mode="json")
        for key, value in json.loads(json.dumps(new)).items():
            before = old.get(name, {}).get(key, value)
            if key not in (*HARMLESS, "workers") and before != value:
                return f"{section}.{key} was {before} and is now {value}"
    return ""


def finite(scores: Mapping[str, float]) -> bool:
    """Tell whether every score is a number."""
    return all(math.isfinite(value) for value in scores.values())
