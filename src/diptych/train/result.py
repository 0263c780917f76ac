"""Result: what a training came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Stopped = Literal["finished", "early", "interrupted"]


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a run.

    Args:
        best: the largest value of the task's monitor; None when nothing was monitored.
        scores: all scores of the kept weights on `valid`.
        steps: optimizer steps taken, over all stages and restarts.
        seconds: of training, without pauses.
        stopped: "finished", "early" (no better score for long), or "interrupted" (Ctrl-C or SIGTERM; goes on).
    """

    best: float | None
    scores: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    stopped: Stopped = "finished"

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)
