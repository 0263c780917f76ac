"""Study: what is drawn, seen and tested, the same for every method; and the scores that came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float, Int, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.config import Config
from diptych.core.errors import unknown
from diptych.core.model import PairEncoder
from diptych.data.source import Source
from diptych.fewshot.coop import CoOpConfig
from diptych.fewshot.interval import mean_interval
from diptych.fewshot.labels import Labelled, read_labels
from diptych.fewshot.pictures import Pictures, Progress
from diptych.fewshot.shots import Draw, Shots, draw
from diptych.fewshot.wise_ft import TuneConfig
from diptych.predictor import PROMPTS, Predictor

METHODS = ("zero-shot", "prototype", "prototype-text", "probe", "tip-adapter", "tip-adapter-f", "coop", "wise-ft")


class FewShotConfig(Config):
    """What is compared, and how often."""

    shots: tuple[Annotated[int, Ge(1)], ...] = Field(default=(1, 2, 4, 8, 16), description="pictures a class")
    methods: tuple[str, ...] = Field(default=METHODS, description="what is compared")
    seeds: int = Field(default=5, ge=1, description="draws of shots; 0, 1, ... are their seeds")
    test_per_class: int = Field(default=0, ge=0, description="test pictures of each class; 0: all")
    prompts: tuple[str, ...] = Field(default=PROMPTS, description="sentences with {} for the name of a class")
    coop: CoOpConfig = Field(default=CoOpConfig(), description="how a context is learnt")
    tune: TuneConfig = Field(default=TuneConfig(), description="how the image side is fine-tuned")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a model still knows of a task it was not tuned for: before, after all of the way, and part of it."""

    task: str
    before: float
    after: float
    chosen: float


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one draw: share of right test pictures in [0, 1], and what validation chose."""

    method: str
    shots: int
    seed: int
    top1: float
    mean_per_class: float
    seconds: float
    chosen: dict[str, float] = field(default_factory=dict)
    kept: Kept | None = None


@dataclass(slots=True)
class Study:
    """The features of every picture that any draw needs, computed once.

    Args:
        predictor: the aligned model.
        pictures: to see them again where a method fine-tunes.
        labelled: classes of training and test pictures.
        config: what is compared.
        place: for each row of the source, its place in `vectors`; -1 for rows that are not needed or unreadable.
        vectors: unit features of the pictures.
        text: one unit vector a class.
        scale: of the model.
        scores: that came out so far.
        left_out: methods that cannot be used with this model, and why.
        short: for each number of shots, how many classes have fewer.
    """

    predictor: Predictor
    pictures: Pictures
    labelled: Labelled
    config: FewShotConfig
    place: Int64[np.ndarray, " rows"]
    vectors: Float[Tensor, "n d"]
    text: Float[Tensor, "c d"]
    scale: float
    scores: list[Score] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    short: dict[int, int] = field(default_factory=dict)

    def draw(self, *, shots: int, seed: int) -> Draw:
        """Draw shots; pictures that cannot be read are left out."""
        found = draw(self.labelled.pool_label, shots=shots, seed=seed)
        train, valid = (places[self.place[self.labelled.pool[places]] >= 0] for places in (found.train, found.valid))
        return Draw(train, valid, found.short)

    def shots(self, drawn: Draw) -> Shots:
        """Return the features of a draw."""
        (image, label), (valid_image, valid_label) = (
            (self.features(self.labelled.pool[places]), self.classes(self.labelled.pool_label[places]))
            for places in (drawn.train, drawn.valid)
        )
        return Shots(image, label, valid_image, valid_label, self.text, self.scale)

    def test(self) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"]]:
        """Return the features of the test pictures that can be read, and their classes."""
        rows, label = self.readable_test()
        return self.features(rows), self.classes(label)

    def readable_test(self) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
        """Return the test rows that can be read, and their classes."""
        there = self.place[self.labelled.test] >= 0
        return self.labelled.test[there], self.labelled.test_label[there]

    def features(self, rows: Int64[np.ndarray, " n"]) -> Float[Tensor, "n d"]:
        """Return the features of some rows."""
        return self.vectors[torch.from_numpy(self.place[rows]).to(self.vectors.device)]

    def classes(self, label: Int64[np.ndarray, " n"]) -> Int[Tensor, " n"]:
        """Return classes where the features are."""
        return torch.from_numpy(label).to(self.vectors.device)

    def results(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "system": self.predictor.system,
            "model": self.predictor.identity,
            "label_column": self.labelled.column,
            "classes": list(self.labelled.names),
            "test": {"split": self.labelled.split, "pictures": len(self.readable_test()[0])}
            | {"of_unknown_classes": self.labelled.unknown},
            "config": self.config.model_dump(mode="json"),
            "summary": list(summary(self.scores)),
            "scores": [asdict(score) for score in self.scores],
            "classes_with_fewer": {str(shots): count for shots, count in self.short.items()},
            "left_out": self.left_out,
            "skipped": [asdict(problem) for problem in self.pictures.skipped],
        }


def open_study(
    predictor: Predictor,
    source: Source,
    config: FewShotConfig,
    *,
    column: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Read the classes, draw all shots and compute the features of every picture that is needed, once.

    Args:
        predictor: the aligned model.
        source: pictures with a class.
        config: what is compared.
        column: with the classes; guessed when None.
        progress: told how far the features are.

    Raises:
        UserError: for an unknown method, or data that have no such column, too few classes, or no readable picture.
    """
    for method in config.methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    if not isinstance(predictor.model, PairEncoder):
        raise cannot(predictor.model, PairEncoder, system=predictor.system)
    labelled = read_labels(source, column=column, test_per_class=config.test_per_class)
    needed, short = [labelled.test], {}
    for shots in config.shots:
        for seed in range(config.seeds):
            found = draw(labelled.pool_label, shots=shots, seed=seed)
            needed += [labelled.pool[found.train], labelled.pool[found.valid]]
            short[shots] = found.short
    text = torch.from_numpy(predictor.label_vectors(labelled.names, prompts=config.prompts)).to(predictor.device)
    pictures = Pictures(predictor, source, progress=progress)
    rows, vectors = pictures.read(np.unique(np.concatenate(needed)))
    place = np.full(len(source), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    scale = float(predictor.model.scale())
    return Study(predictor, pictures, labelled, config, place, vectors, text, scale, short=short)


def summary(scores: Sequence[Score]) -> Iterator[dict[str, Any]]:
    """Give the mean over seeds of each method and number of shots, with half its 95 % interval (None for one seed)."""
    groups: dict[tuple[str, int], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.method, score.shots), []).append(score)
    for (method, shots), group in groups.items():
        mean, half = mean_interval([score.top1 for score in group])
        per_class = mean_interval([score.mean_per_class for score in group])
        seconds = sum(score.seconds for score in group) / len(group)
        yield (
            {"method": method, "shots": shots, "seeds": len(group), "top1": mean, "top1_half_width": half}
            | {
                "mean_per_class": per_class[0],
                "mean_per_class_half_width": per_class[1],
                "seconds": seconds,
            }
            | _kept([score.kept for score in group if score.kept is not None])
        )


def _kept(found: Sequence[Kept]) -> dict[str, Any]:
    if not found:
        return {}
    means = {name: sum(getattr(kept, name) for kept in found) / len(found) for name in ("before", "after", "chosen")}
    return {"kept": {"task": found[0].task, **means}}
