"""The one loop: `train(model, task, config, out=...)`, for every system, on one process or many."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.core.runtime import rank, seed_everything
from diptych.tasks.task import Task
from diptych.train.checkpoint import RECORD
from diptych.train.config import TrainConfig
from diptych.train.distributed import decided_by_first, processes, require_joined
from diptych.train.files import disk_trouble, write_json
from diptych.train.folder import where_to_start
from diptych.train.interrupt import Interrupt
from diptych.train.log import Log
from diptych.train.progress import choose
from diptych.train.result import Result
from diptych.train.run import Run
from diptych.train.state import Place, read_place


def train(
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    out: Path,
    record: Mapping[str, Any] | None = None,
    command: str = "",
    resume: bool = False,
    quiet: bool = False,
) -> Result:
    """Train a model, keep the best weights, and be able to go on after whatever happens.

    A run that was stopped goes on when it is asked for again with the same settings, as if it had never stopped: on a
    CPU bit for bit. With several processes (`torchrun`), enter `distributed.processes()` before the task is built.

    Args:
        model: built for `task.spec`; at the end it holds the kept weights and is in evaluation mode.
        task: the data and the scores.
        config: how to train.
        out: the run folder; with several machines, on a disk they share.
        record: what `config.json` shall say: `system`, `config`, `spec`, `data`, `versions`, `command`.
        command: what the user can type to go on, shown when the run is interrupted.
        resume: go on also where the run is finished or was begun with other settings of training.
        quiet: show no progress.

    Returns:
        The best score, all scores, and why it ended.

    Raises:
        UserError: when the folder, the settings or the data do not fit, the loss is no number any more, or the disk is
            full. The last good state stays.
    """
    require_joined()
    _require_work(task, config)
    told = {**(record or {}), "train": config.model_dump(mode="json")}
    with processes(config.device) as device, Interrupt() as interrupt:
        start = _begin(out, told, config, device, resume=resume)
        place, kept = (Place(), {}) if start is None else read_place(start)
        if resume and kept:
            kept["stale"] = 0
        seed_everything(config.seed + rank())
        display = choose(quiet=quiet or rank() != 0)
        log = Log(out, config.log if rank() == 0 else (), length=place.log_bytes, step=place.step)
        try:
            # A model cannot be put together again once it is sharded, so a copy is.
            learner = (deepcopy(model) if config.sharding == "fsdp" else model).to(device)
            run = Run(learner, task, config, place, out=out, device=device, log=log, display=display)
            result = run.all(interrupt, start, kept)
            run.hand_over(model.to(device))
            if result.stopped == "interrupted":
                display.say(f"stopped at step {result.steps} and saved; go on with: {command or 'the same call'}")
        finally:
            log.close()
            display.end()
        if result.stopped != "interrupted" and rank() == 0:
            with disk_trouble(str(out / RECORD), "the weights are saved"):
                write_json(out / RECORD, {**told, "result": result.record()})
    return result


def _begin(
    out: Path, record: Mapping[str, Any], config: TrainConfig, device: torch.device, *, resume: bool
) -> Path | None:
    """Let the first process look at the folder and claim it; return the state to go on from, if any."""

    def claim() -> str:
        start = where_to_start(out, record, config, resume=resume)
        with disk_trouble(str(out), "nothing was begun"):
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / RECORD, record)
        return "" if start is None else str(start)

    found = decided_by_first(claim, device)
    return Path(found) if found else None


def _require_work(task: Task, config: TrainConfig) -> None:
    if len(task.train) == 0:
        raise UserError(
            f"there is no full batch to learn from: batches of {task.train.batch_size} are over the data; "
            "give a smaller batch_size"
        )
    if config.steps == 0 and config.epochs == 0:
        raise UserError("there is nothing to do: epochs=0 and steps=0; give one of them")
    if task.monitor and (task.valid is None or not task.evaluators):
        raise UserError(f"the score {task.monitor!r} cannot be watched: the task has no valid split or no evaluator")
