"""Classes: learn to name pictures, where need be in a target domain of which only the pictures are known.

A column says of each picture which domain it is of (`domain`; failing that `style`, or the first of nested folders).
Labels are learnt from in the source domains. Those of the target are not read at all in training, nor to choose the
best weights: only where the test split is scored. Without domains this is plain classification.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field

from diptych.core import runtime
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Adapting, Classifier, Model
from diptych.data.domains import Domains
from diptych.data.images import stack
from diptych.data.loader import Example, Loader
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Sighted
from diptych.encoders.towers import ImageTowerConfig, image_size_for
from diptych.tasks.beside import Beside
from diptych.tasks.class_scores import SOURCE, TARGET, Outputs
from diptych.tasks.data import Judge, TaskData, spec_for
from diptych.tasks.features import Features, compute_features
from diptych.tasks.sides import Sides, label_of

MONITOR = "selection"


class Settings(Config):
    """How classes and domains are read from the data."""

    batch_size: int = Field(default=64, gt=0, description="labelled pictures in a batch, of all processes together")
    domain: str = Field(default="", description="column with the domain; empty: domain, style or the outer folder")
    sources: tuple[str, ...] = Field(default=(), description="domains to learn from; empty: all but the targets")
    targets: tuple[str, ...] = Field(default=(), description="domains to adapt to, whose labels are for the test alone")
    labels: Literal["source", "target", "both"] = Field(
        default="source", description="whose labels are learnt from; target or both: to see what they would be worth"
    )
    augment: Literal["none", "crop"] = Field(default="none", description="crop training pictures at random")
    workers: int = Field(default=2, ge=0, description="threads that read pictures; 0: none beside the main one")
    cache: bool = Field(default=True, description="keep the outputs of a frozen tower on disk")

    def sides(self, source: Source) -> Sides:
        """Part the rows of a source.

        Raises:
            UserError: when it has not these domains, or none where there must be a target.
        """
        if not self.targets and self.labels != "source":
            raise UserError(f"labels={self.labels} needs a target domain: give --set targets=DOMAIN")
        return Sides.of(source, self.sources, self.targets, column=self.domain)


@dataclass(frozen=True, slots=True)
class ClassData(TaskData):
    """A source of pictures with classes, parted into domains.

    Args:
        source: the data.
        tokenizer: of no use here; every run folder has one.
        spec: facts the model was built for.
        settings: batch size and domains.
        sides: which rows are of which side.
        crop: how a picture becomes square.
        features: what a frozen tower made of the pictures.
        seed: of the order.
        adapting: whether pictures of the target are learnt from.
    """

    source: Source
    tokenizer: Tokenizer
    spec: DataSpec
    settings: Settings
    sides: Sides
    crop: str
    features: Features
    seed: int
    adapting: bool

    def training(self) -> Loader | Beside:
        """Return shuffled batches of labelled pictures; for a system that adapts, as many of the other side below.

        Raises:
            UserError: when the batch is larger than the data or not a multiple of the processes.
        """
        world, batch = runtime.world(), self.settings.batch_size
        if batch % world:
            fits = max(1, batch // world) * world
            raise UserError(f"batch_size {batch} is not a multiple of {world} processes; use {fits}")
        train, told = self.source.rows("train"), self.sides.labelled(self.settings.labels)
        labelled = [row for row in np.intersect1d(train, told).tolist() if label_of(self.source, row) is not None]
        first = self._shuffled(np.array(labelled, dtype=np.int64))
        others = self.sides.target if self.settings.labels == "source" else self.sides.source
        if not self.adapting or self.settings.labels == "both":
            return first
        return Beside(first, self._shuffled(np.intersect1d(train, others)))

    def judged(self, split: str, model: Model) -> Loader | None:
        """Return every picture of a split once; the target's labels only where the split is "test" or "all"."""
        rows = self._readable(np.intersect1d(self.source.rows(split), self.sides.labelled("both")))
        if len(rows) == 0:
            return None
        return self._loader(rows, told=split in ("test", "all"))

    def judge(self, model: Model) -> Judge:
        """Judge by the classes; the best weights are chosen without a label of the target, unless it is learnt from."""
        return Judge((self.score,), MONITOR)

    def unread(self) -> tuple[Problem, ...]:
        """Return the pictures that a frozen tower could not be asked about."""
        return self.features.problems

    @torch.no_grad()
    def outputs(self, model: Model, batches: Iterable[Batch]) -> Outputs:
        """Name pictures.

        Raises:
            UserError: for a model that names no classes.
        """
        if not isinstance(model, Classifier):
            raise UserError(f"{type(model).__name__} names no classes; fine_tune, mmd and dann do")
        device = next(model.parameters()).device
        found = []
        for batch in batches:
            features = model.features(batch.to(device))
            told = (batch.need("label"), batch.need("domain"), batch.need("pair_id"))
            found.append((features.float().cpu(), model.logits(features).float().cpu(), *(x.cpu() for x in told)))
        return Outputs(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def score(self, model: Model, batches: Iterable[Batch]) -> dict[str, float]:
        """Score what a model says of pictures.

        Returns:
            For each side whose labels are told its accuracy, over pictures and as a mean over classes; how decided and
            varied the guesses on the target are; and `selection`, which chooses the best weights: the mean chance
            given to the right class where labels may be learnt from, plus, for a system that adapts, the former.
        """
        out = self.outputs(model, batches)
        scores = out.scores(prefixed=len(self.sides.target) > 0)
        own = {"source": (SOURCE,), "target": (TARGET,), "both": (SOURCE, TARGET)}[self.settings.labels]
        adapts = self.adapting and self.settings.labels == "source"
        return scores | {MONITOR: out.chance(own) + (scores.get("target/infomax", 0.0) if adapts else 0.0)}

    def _readable(self, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
        return self.features.readable(rows)

    def _shuffled(self, rows: Int64[np.ndarray, " n"]) -> Loader:
        return self._loader(self._readable(rows), shuffle=True)

    def _loader(self, rows: Int64[np.ndarray, " n"], *, shuffle: bool = False, told: bool = False) -> Loader:
        world = runtime.world() if shuffle else 1
        return Loader(
            self.source,
            rows,
            _Collate(self, told=told),
            batch_size=self.settings.batch_size // world,
            size=self.spec.image_size,
            seed=self.seed,
            shuffle=shuffle,
            workers=self.settings.workers,
            rank=runtime.rank() if shuffle else 0,
            world=world,
            crop="random" if shuffle and self.settings.augment == "crop" else self.crop,
            pictures=self.features.image is None,
        )


class _Collate:
    """Makes batches; `told` says whether the labels of every side may be read."""

    def __init__(self, data: ClassData, *, told: bool) -> None:
        self.data = data
        self.target = np.zeros(len(data.source), dtype=bool)
        self.target[data.sides.target] = True
        self.told = np.full(len(data.source), told)
        self.told[data.sides.labelled(data.settings.labels)] = True
        self.places = {name: place for place, name in enumerate(data.spec.classes)}

    def __call__(self, examples: Sequence[Example]) -> Batch:
        rows = np.array([example.index for example in examples], dtype=np.int64)
        images = [example.image for example in examples if example.image is not None]
        return Batch(
            image=stack(images) if images else None,
            image_states=self.data.features.of_images(rows),
            label=torch.tensor([self._label(example) for example in examples]),
            domain=torch.from_numpy(self.target[rows].astype(np.int64)),
            pair_id=torch.from_numpy(rows),
        )

    def _label(self, example: Example) -> int:
        if not self.told[example.index]:
            return -1
        name = example.row.fields.get("label")
        return -1 if name in (None, "") else self.places.get(str(name), len(self.places))


def facts(source: Source, config: Config, settings: Settings) -> tuple[Tokenizer, DataSpec]:
    """Return the least tokenizer there is, the size of the pictures, and the classes that may be learnt from.

    Raises:
        UserError: when the system takes no image tower, or the data has no classes or not these domains.
    """
    if not isinstance(config, ImageTowerConfig):
        raise UserError("this system has no image tower, so it does not learn the classes of pictures")
    rows = np.intersect1d(source.rows("train"), settings.sides(source).labelled(settings.labels))
    found = {label_of(source, row) for row in rows.tolist()} - {None}
    if not found:
        raise UserError(f"{source.name} has no classes to learn from; name their column with --label-column")
    tokenizer = Tokenizer.train((), vocabulary=512)
    classes = tuple(sorted(str(name) for name in found))
    return tokenizer, spec_for(tokenizer, image_size=image_size_for(config), classes=classes)


def join(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    settings: Settings,
    *,
    split: str = "all",
    seed: int = 0,
    device: str = "auto",
) -> ClassData:
    """Join a source and a model; with `settings.cache`, a frozen tower is asked once and its outputs kept on disk.

    Args:
        source: the data.
        model: built or loaded.
        tokenizer: of no use.
        spec: it was built for.
        settings: how to read classes and domains.
        split: the rows that will be used.
        seed: of the order.
        device: where a frozen tower computes.

    Raises:
        UserError: when a system that adapts is told no target.
    """
    sides, adapting = settings.sides(source), isinstance(model, Adapting)
    if adapting and not len(sides.target):
        known = ", ".join(Domains.read(source, settings.domain).names) or "none: name their column with --set domain="
        raise UserError(f"this system adapts to a target domain: give --set targets=DOMAIN (there are: {known})")
    crop = model.image_tower.crop if isinstance(model, Sighted) else "squash"
    features = Features()
    if settings.cache and isinstance(model, Sighted) and settings.augment == "none":
        features = compute_features(source, model, tokenizer, spec, source.rows(split), device=device)
    return ClassData(source, tokenizer, spec, settings, sides, crop, features, seed, adapting)
