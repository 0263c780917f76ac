"""Experiment: a plan and some data become a model, a task and at last a run folder that can be opened again."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diptych import models
from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Fitted, Model, PairEncoder
from diptych.core.runtime import barrier, rank, seed_everything
from diptych.data.loader import Loader
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Towered
from diptych.encoders.towers import TowerConfig, context_for, image_size_for, tokenizer_for
from diptych.metrics.retrieval import Retrieval
from diptych.tasks.features import compute_features
from diptych.tasks.pairs import Gallery, PairData, PairSettings
from diptych.tasks.retrieval import retrieve
from diptych.train.checkpoint import WEIGHTS, load_weights, read_record
from diptych.train.files import disk_trouble
from diptych.train.folder import where_to_start
from diptych.train.plan import Plan
from diptych.train.result import Result
from diptych.train.trainer import train

TOWERS = {"image_encoder": "image_tower", "text_encoder": "text_tower"}
"""Fields of a config that name a tower, and where the model has it; also names of folders inside a run."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that a training needs, built and ready."""

    plan: Plan
    model: Model
    data: PairData
    record: dict[str, Any]
    skipped: list[Problem] = field(default_factory=list)

    def left_out(self) -> list[Problem]:
        """Return the rows that could not be used, as far as they were come across."""
        found = (*self.data.source.problems, *self.data.features.problems, *self.skipped)
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
        return crop_of(self.model)


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
        UserError: when the system takes no towers, the data has no captions or the folder cannot be used.
    """
    if not isinstance(plan.model, TowerConfig):
        raise UserError(f"{plan.system} has no image and text tower, so it does not learn from pictures with captions")
    source.need_captions()
    tokenizer = tokenizer_for(plan.model, source.texts(source.rows("train")))
    spec = DataSpec(
        image_size=image_size_for(plan.model),
        vocabulary=tokenizer.vocabulary,
        context=context_for(plan.model),
        pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        unk_id=tokenizer.unk_id,
    )
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
    data = pair_data(source, model, tokenizer, spec, plan.data, seed=plan.train.seed, device=plan.train.device)
    return Experiment(plan, model, data, record)


def pair_data(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    settings: PairSettings,
    *,
    split: str = "all",
    seed: int = 0,
    device: str = "auto",
) -> PairData:
    """Join a source and a model; with `settings.cache`, frozen towers are asked once and their outputs kept on disk.

    Args:
        source: the data.
        model: built or loaded.
        tokenizer: of its text tower.
        spec: it was built for.
        settings: how to read pairs.
        split: the rows that will be used.
        seed: of order and captions.
        device: where frozen towers compute.
    """
    data = PairData(source, tokenizer, spec, settings, crop=crop_of(model), seed=seed)
    if not settings.cache or not isinstance(model, Towered):
        return data
    features = compute_features(
        source, model, tokenizer, spec, source.rows(split), still=settings.augment == "none", device=device
    )
    return PairData(source, tokenizer, spec, settings, crop=data.crop, features=features, seed=seed)


def run(
    experiment: Experiment, *, out: Path, command: str = "", resume: bool = False
) -> tuple[Result, Retrieval | None]:
    """Train and save a run folder; what is known of the test split is scored once, at the end.

    Returns:
        How the training ended, and the retrieval scores on the test split, where there is one, the model can be
        scored so and the training ended by itself.
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
    for batches in (task.train, task.valid):
        experiment.skipped.extend(batches.skipped if isinstance(batches, Loader | Gallery) else ())
    if result.stopped == "interrupted" or task.test is None or not isinstance(experiment.model, PairEncoder):
        return result, None
    return result, retrieve(experiment.model, task.test.epoch(0))


def save_assets(out: Path, model: Model, tokenizer: Tokenizer) -> None:
    """Write the tokenizer and the small files that rebuild pretrained towers without their origin."""
    with disk_trouble(str(out), "nothing was begun"):
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
        if isinstance(model, Towered):
            for folder, tower in (("image_encoder", model.image_tower), ("text_encoder", model.text_tower)):
                for name, content in tower.assets().items():
                    (out / folder).mkdir(exist_ok=True)
                    (out / folder / name).write_bytes(content)


def load_run(folder: Path) -> OpenRun:
    """Open a run folder, wherever it was moved to.

    Raises:
        UserError: when it is no run, is unfinished or cut short, or does not fit its system.
    """
    record = read_record(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no weights yet: its training has not come to a first score; let it go on")
    module = models.load(record["system"])
    values: dict[str, Any] = dict(record["config"])
    for name in TOWERS:
        if name in values and (folder / name).is_dir():
            values[name] = f"config:{folder / name}"
    spec = DataSpec.parse(record["spec"])
    model = module.build(module.Config.parse(values), spec)
    load_weights(model, folder)
    digest = hashlib.blake2b((folder / WEIGHTS).read_bytes(), digest_size=8).hexdigest()
    tokenizer = Tokenizer.load(folder, spec)
    return OpenRun(folder, record["system"], model.eval(), tokenizer, spec, f"{record['system']}-{digest}", record)


def crop_of(model: Model) -> str:
    """Return how a model's image tower wants pictures made square."""
    return model.image_tower.crop if isinstance(model, Towered) else "squash"


def versions() -> Mapping[str, str]:
    """Return the versions that a number may depend on."""
    packages = {name: version(name) for name in ("diptych", "torch", "numpy", "tokenizers", "transformers")}
    return {"python": platform.python_version(), **packages}
