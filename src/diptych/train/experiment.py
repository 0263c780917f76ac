"""Experiment: a plan and some data become a model, a task and at last a run folder that can be opened again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diptych import models, tasks
from diptych.core.batch import DataSpec
from diptych.core.model import Fitted, Model
from diptych.core.runtime import barrier, rank, seed_everything
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.base import Tower
from diptych.encoders.offers import Sighted, Worded
from diptych.models.saved import open_model
from diptych.tasks.data import TaskData, judge_on
from diptych.tasks.task import Skipping
from diptych.train.checkpoint import WEIGHTS, read_record
from diptych.train.files import disk_trouble
from diptych.train.folder import where_to_start
from diptych.train.hub import find_run
from diptych.train.init import begin_with, tokens_of
from diptych.train.plan import Plan
from diptych.train.result import Result
from diptych.train.trainer import train

SCORES = "scores.json"
"""File in a run folder with the scores on the test split, by flat names."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that a training needs, built and ready."""

    plan: Plan
    model: Model
    data: TaskData
    record: dict[str, Any]
    skipped: list[Problem] = field(default_factory=list)

    def left_out(self) -> list[Problem]:
        """Return the rows that could not be used, as far as they were come across."""
        found = (*self.data.source.problems, *self.data.unread(), *self.skipped)
        return [problem for problem in found if not problem.kept]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run folder, opened: the model with its kept weights and all that it needs to be used."""

    folder: Path
    system: str
    model: Model
    tokenizer: Tokenizer
    spec: DataSpec
    identity: str
    record: dict[str, Any]

    @property
    def crop(self) -> str:
        """How the model's image tower wants pictures made square."""
        return self.model.image_tower.crop if isinstance(self.model, Sighted) else "squash"


def prepare(
    plan: Plan, source: Source, *, out: Path, named: str, command: str = "", resume: bool = False
) -> Experiment:
    """Build tokenizer, model and data for a plan; what frozen towers make of the data is computed here, once.

    With several processes, enter `distributed.processes()` first; every process calls this.

    Args:
        plan: what to build.
        source: the data.
        out: the run folder; asked early whether it may be used, so that nothing is computed in vain.
        named: what the user called the data, for the record.
        command: what was typed, for the record.
        resume: as in `train`.

    Raises:
        UserError: when the data lacks what the system learns from, or the folder cannot be used.
    """
    kind = tasks.load(plan.model.learns)
    tokenizer, spec = kind.facts(source, plan.model, plan.data)
    if plan.train.init:
        tokenizer, spec = tokens_of(plan.train.init, tokenizer, spec, plan.model)
    record = {
        "system": plan.system,
        "config": plan.model.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
        "data": {"named": named, "source": source.name, "fingerprint": source.fingerprint()}
        | plan.data.model_dump(mode="json", exclude={"workers"}),
        "versions": versions(),
        "command": command,
    }
    where_to_start(out, record, plan.train, resume=resume)
    seed_everything(plan.train.seed)
    model = models.load(plan.system).build(plan.model, spec)
    if plan.train.init:
        begin_with(model, plan.train.init, plan.model)
    data = kind.join(source, model, tokenizer, spec, plan.data, seed=plan.train.seed, device=plan.train.device)
    return Experiment(plan, model, data, record)


def data_for(run: OpenRun, source: Source, *, split: str = "all", device: str = "auto") -> TaskData:
    """Join a source to an opened run, read as in its training, but with nothing cached or changed at random.

    Args:
        run: the model and its tokenizer.
        source: any data of its kind.
        split: the rows that will be used.
        device: where frozen towers compute.
    """
    kind = tasks.load(models.load(run.system).Config.learns)
    known = {name: value for name, value in run.record["data"].items() if name in kind.Settings.model_fields}
    plain = {"cache": False, "augment": "none", "noise": 0.0, "only": "", "exclude": ""}
    settings = kind.Settings.parse(known | {name: value for name, value in plain.items() if name in known})
    return kind.join(source, run.model, run.tokenizer, run.spec, settings, split=split, device=device)


def run(
    experiment: Experiment, *, out: Path, command: str = "", resume: bool = False
) -> tuple[Result, dict[str, float]]:
    """Train and save a run folder; what is known of the test split is scored once, at the end, into `scores.json`.

    Returns:
        How the training ended, and the scores on the test split by flat names: none when there is no such split or
        the training was interrupted.
    """
    if rank() == 0:
        save_assets(out, experiment.model, experiment.data.tokenizer)
    barrier()
    task = experiment.data.task(experiment.model)
    if isinstance(experiment.model, Fitted):
        experiment.model.fit(task.train.epoch(0))
    result = train(
        experiment.model,
        task,
        experiment.plan.train,
        out=out,
        record=experiment.record,
        command=command,
        resume=resume,
    )
    seen: list[object] = [task.train, task.valid]
    for batches in seen:
        if isinstance(batches, Skipping):
            experiment.skipped.extend(problem for problem in batches.skipped if isinstance(problem, Problem))
    if result.stopped == "interrupted" or task.test is None:
        return result, {}
    scores = judge_on(experiment.model, task.test, task.evaluators, skipped=experiment.skipped)
    if rank() == 0:
        with disk_trouble(str(out), "the weights are saved"):
            text = json.dumps({"test": scores}, indent=2)
            (out / SCORES).write_text(text + "\n", encoding="utf-8")
    return result, scores


def save_assets(out: Path, model: Model, tokenizer: Tokenizer) -> None:
    """Write the tokenizer and the small files that rebuild pretrained towers without their origin."""
    with disk_trouble(str(out), "nothing was begun"):
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
        towers: dict[str, Tower] = {"image_encoder": model.image_tower} if isinstance(model, Sighted) else {}
        if isinstance(model, Worded):
            towers["text_encoder"] = model.text_tower
        for folder, tower in towers.items():
            for name, content in tower.assets().items():
                (out / folder).mkdir(exist_ok=True)
                (out / folder / name).write_bytes(content)


def load_run(folder: Path) -> OpenRun:
    """Open a run folder, wherever it was moved to: also `USER/NAME` in a hub's cache and `hf:USER/NAME` on the hub.

    Raises:
        UserError: when it is no run, is unfinished or cut short, or does not fit its system.
    """
    folder = find_run(folder)
    record = read_record(folder)
    model = open_model(folder, record)
    digest = hashlib.blake2b((folder / WEIGHTS).read_bytes(), digest_size=8).hexdigest()
    spec = DataSpec.parse(record["spec"])
    tokenizer = Tokenizer.load(folder, spec)
    return OpenRun(folder, record["system"], model, tokenizer, spec, f"{record['system']}-{digest}", record)


def versions() -> Mapping[str, str]:
    """Return the versions that a number may depend on."""
    packages = {name: version(name) for name in ("diptych", "torch", "numpy", "tokenizers", "transformers")}
    return {"python": platform.python_version(), **packages}
