"""Drawings: learn to draw pictures for their captions, judged by a classifier that was trained on real pictures.

`recogniser` names the run of that classifier. It says how many of the drawn pictures show the class of the picture
whose caption they were drawn for, and gives the features on which drawn and real pictures are compared. Such numbers
are comparable only under the same recogniser, so `protocol` says which it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import ImageGenerator, Model
from diptych.data.loader import Loader
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.metrics.images import frechet_distance, inception_score
from diptych.tasks import pairs
from diptych.tasks.data import Judge, TaskData
from diptych.tasks.pair_data import PairData, PairSettings
from diptych.tasks.recogniser import Recogniser, Seen

MONITOR = "recognised"
NOISE = 0
"""Seed of the chance in judged pictures: every score of a run draws from the same."""
DRAWN = 64


class Settings(PairSettings):
    """How pictures and captions are read, and by what drawn pictures are judged."""

    batch_size: int = Field(default=64, gt=0, description="pictures in a batch, of all processes together")
    recogniser: str = Field(default="", description="folder of a run that names classes; empty: pictures go unjudged")
    judged: int = Field(default=500, gt=1, description="captions of a split that are drawn for its scores, at most")


@dataclass(frozen=True, slots=True)
class DrawingData(TaskData):
    """A source as captions to draw for and pictures to be compared with.

    Args:
        pairs: the same source as pictures with one of their captions each.
        settings: batch size and judge.
        recogniser: what drawn pictures are judged by; None where nothing is.
        floor: distances of training pictures from those of some rows, once they were computed.
    """

    pairs: PairData
    settings: Settings
    recogniser: Recogniser | None
    floor: dict[tuple[int, ...], float] = field(default_factory=dict)
    source: Source = field(init=False)
    tokenizer: Tokenizer = field(init=False)
    spec: DataSpec = field(init=False)

    def __post_init__(self) -> None:
        for name in ("source", "tokenizer", "spec"):
            object.__setattr__(self, name, getattr(self.pairs, name))

    def training(self) -> Loader:
        """Return shuffled batches of a picture with one of its captions, drawn anew each epoch."""
        return self.pairs.training()

    def judged(self, split: str, model: Model) -> Loader | None:
        """Return pictures of a split with one of their captions each, always the same; None without a judge."""
        return None if self.recogniser is None else self.pictures(split, most=self.settings.judged)

    def judge(self, model: Model) -> Judge:
        """Judge by what the recogniser sees, if there is one; else the last weights are kept."""
        return Judge(() if self.recogniser is None else (self.score,), "" if self.recogniser is None else MONITOR)

    def unread(self) -> tuple[Problem, ...]:
        """Return the pictures that could not be read beforehand; none is."""
        return self.pairs.unread()

    def protocol(self, split: str) -> str:
        """Say how pictures were drawn and compared."""
        loader = None if self.recogniser is None else self.pictures(split, most=self.settings.judged)
        if self.recogniser is None or loader is None:
            return ""
        return (
            f"Drawn: {len(loader.rows):,} pictures of {self.spec.image_size} px, for one caption of each real picture "
            f"of {split}, noise from seed {NOISE}. Recognised: the share in which {self.recogniser.about()} sees the "
            "class of that real picture, and beside it the same share of the real pictures themselves. Frechet: the "
            "squared distance between drawn and real ones on the features that it reads classes from, not Inception's; "
            "beside it that between as many training pictures and the real ones, as near as one can come. Inception: "
            "of its probabilities, in one part."
        )

    def pictures(self, split: str, *, most: int) -> Loader | None:
        """Return pictures of a split with one caption each, `most` of them spread evenly; None where it is empty."""
        rows = spread(self.pairs.readable(self.source.rows(split)), most)
        return self._loader(rows) if len(rows) > 0 else None

    def drawn(self, model: Model, batches: Iterable[Batch], *, seed: int = NOISE) -> Iterator[tuple[Batch, Tensor]]:
        """Draw a picture for each caption.

        Yields:
            Batches and the pictures for them, in [0, 1], on the CPU.

        Raises:
            UserError: when the model does not draw.
        """
        if not isinstance(model, ImageGenerator):
            raise cannot(model, ImageGenerator)
        device = next(model.parameters()).device
        random = torch.Generator().manual_seed(seed)
        for batch in batches:
            with torch.no_grad():
                yield batch, model.draw(batch.to(device), random).float().cpu()

    def score(self, model: Model, batches: Iterable[Batch]) -> dict[str, float]:
        """Score what a model draws.

        Returns:
            Under `recognised` the share of pictures that show what was asked, on scenes `colour` and `shape` alone too;
            `frechet` and `inception`; and what real pictures reach, under names that begin with `real/`.
        """
        assert self.recogniser is not None
        device = next(model.parameters()).device
        rows, drawn, real = [], [], []
        for batch, pictures in self.drawn(model, batches):
            rows += batch.need("pair_id").tolist()
            drawn.append(self.recogniser.look(pictures.to(device)))
            real.append(self.recogniser.look(batch.need("image").to(device)))
        asked, made, true = self._asked(rows), _joined(drawn), _joined(real)
        scores = {**self._shown(made, asked), "frechet": _apart(made, true), "inception": _sure(made)}
        if tuple(rows) not in self.floor:
            self.floor[tuple(rows)] = _apart(self._training_pictures(len(rows), device), true)
        beside = {**self._shown(true, asked), "frechet": self.floor[tuple(rows)], "inception": _sure(true)}
        return scores | {f"real/{name}": value for name, value in beside.items()}

    def _asked(self, rows: list[int]) -> list[str]:
        """Return the class of each row's picture."""
        return [str(self.source.row(row).fields.get("label", "")) for row in rows]

    def _shown(self, seen: Seen, asked: list[str]) -> dict[str, float]:
        """Return the share of pictures that show their class; on scenes also its colour and its shape alone."""
        assert self.recogniser is not None
        classes = self.recogniser.spec.classes
        shown = [classes[place] for place in seen.logits.argmax(1).tolist()]
        both = list(zip(shown, asked, strict=True))
        scores = {MONITOR: _share([one == other for one, other in both])}
        if "objects" in self.source.row(0).fields:
            for place, name in enumerate(("colour", "shape")):
                scores[name] = _share([one.split()[place] == other.split()[place] for one, other in both])
        return scores

    def _training_pictures(self, count: int, device: torch.device) -> Seen:
        assert self.recogniser is not None
        rows = spread(self.pairs.readable(self.source.rows("train")), count)
        batches = self._loader(rows).epoch(0)
        return _joined([self.recogniser.look(batch.need("image").to(device)) for batch in batches])

    def _loader(self, rows: Int64[np.ndarray, " n"]) -> Loader:
        return Loader(
            self.source,
            rows,
            self.pairs.collate,
            batch_size=DRAWN,
            size=self.spec.image_size,
            seed=self.pairs.seed,
            workers=self.settings.workers,
            crop=self.pairs.crop,
        )


def spread(rows: Int64[np.ndarray, " n"], most: int) -> Int64[np.ndarray, " k"]:
    """Take `most` rows at even distances, or all where there are no more."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _joined(parts: list[Seen]) -> Seen:
    return Seen(torch.cat([part.features for part in parts]), torch.cat([part.logits for part in parts]))


def _apart(one: Seen, other: Seen) -> float:
    return frechet_distance(one.features.numpy(), other.features.numpy())


def _sure(seen: Seen) -> float:
    return inception_score(seen.logits.double().softmax(1).numpy(), splits=1)[0]


def _share(right: list[bool]) -> float:
    return sum(right) / len(right)


def facts(source: Source, config: Config, settings: Settings) -> tuple[Tokenizer, DataSpec]:
    """Return the text tower's tokenizer and the facts for a system that draws.

    Raises:
        UserError: as for pairs.
    """
    return pairs.facts(source, config, settings)


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
) -> DrawingData:
    """Join a source and a model; with `settings.cache`, a frozen text tower is asked once.

    Args:
        source: the data.
        model: built or loaded.
        tokenizer: of its text tower.
        spec: it was built for.
        settings: how to read pairs, and the judge.
        split: the rows that will be used.
        seed: of order and captions.
        device: where a frozen tower computes.

    Raises:
        UserError: when the recogniser is no run, or the data has no classes for it to name.
    """
    joined = pairs.join(source, model, tokenizer, spec, settings, split=split, seed=seed, device=device)
    recogniser = Recogniser(settings.recogniser) if settings.recogniser else None
    if recogniser is not None:
        _require_known(joined.source, recogniser)
    return DrawingData(joined, settings, recogniser)


def _require_known(source: Source, recogniser: Recogniser) -> None:
    """Refuse a judge who could never be right."""
    some = {source.row(int(row)).fields.get("label") for row in spread(np.arange(len(source)), 200)} - {None}
    if not {str(name) for name in some} & set(recogniser.spec.classes):
        told = ", ".join(sorted(map(str, some))[:3]) or "none"
        raise UserError(
            f"recogniser={recogniser.run} names {', '.join(recogniser.spec.classes[:3]) or 'no classes'} ..., but the "
            f"classes of {source.name} are {told}; train it on pictures with those labels"
        )
