"""Captions: learn to write about pictures, judged by what is written against all that people wrote of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Captioner, Model, Rewarded
from diptych.core.writing import Writing
from diptych.data.loader import Loader
from diptych.data.scene_truth import truth
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Sighted
from diptych.encoders.towers import image_size_for
from diptych.metrics.captions import References, caption_scores
from diptych.metrics.words import lines
from diptych.models.captioning import CaptionConfig
from diptych.tasks.data import Judge, TaskData, spec_for
from diptych.tasks.features import Features, compute_features
from diptych.tasks.held_out import MONITOR as LOSS_MONITOR
from diptych.tasks.held_out import held_out
from diptych.tasks.pair_data import PairData, PairSettings

MONITOR = "cider_d"
JUDGED = 64
"""Pictures that are written about at a time."""
END = "<end>"
"""A word that stands for the end mark in rewards, or breaking off would cost nothing."""


class Settings(Config):
    """How captions are read from the data, and written when the model is judged."""

    batch_size: int = Field(default=128, gt=0, description="captions in a batch, of all processes together")
    captions: int = Field(default=1, gt=0, description="captions a picture in a batch, for which it is encoded once")
    augment: Literal["none", "crop"] = Field(default="none", description="crop training pictures at random")
    workers: int = Field(default=2, ge=0, description="threads that read pictures; 0: none beside the main one")
    cache: bool = Field(default=True, description="keep the outputs of a frozen tower on disk")
    beams: int = Field(default=5, ge=1, description="of the judged captions; 1 is greedy")
    longest: int = Field(default=24, ge=1, description="tokens of a judged caption at most, the end included")
    length_power: float = Field(default=0.0, description="of the judged captions; above 0 makes them longer")

    def pairs(self) -> PairSettings:
        """Return how pairs are read."""
        return PairSettings(
            batch_size=self.batch_size,
            captions=self.captions,
            augment=self.augment,
            workers=self.workers,
            cache=self.cache,
            prompts=(),
        )

    def writing(self) -> Writing:
        """Return how the judged captions are written."""
        return Writing(beams=self.beams, longest=self.longest, length_power=self.length_power)


@dataclass(frozen=True, slots=True)
class CaptionData(TaskData):
    """A source as captions to learn and to be compared with.

    Args:
        pairs: the same source as pictures with one of their captions each.
        settings: batch size and how captions are written.
    """

    pairs: PairData
    settings: Settings
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
        """Return every picture of a split once; for a model that cannot write, with a caption."""
        return self.pictures(split) if isinstance(model, Captioner) else self.pairs.held_out(split)

    def judge(self, model: Model) -> Judge:
        """Judge by what is written, or by the loss of a model that cannot write."""
        if not isinstance(model, Captioner):
            return Judge((held_out,), LOSS_MONITOR)
        return Judge((self.score,), MONITOR)

    def unread(self) -> tuple[Problem, ...]:
        """Return the pictures that a frozen tower could not be asked about."""
        return self.pairs.unread()

    def pictures(self, split: str, *, most: int | None = None) -> Loader | None:
        """Return the pictures of a split that have captions, once each, `most` of them spread evenly."""
        rows = self.pairs.readable(self.source.rows(split))
        if len(rows) == 0:
            return None
        if most is not None and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        return Loader(
            self.source,
            rows,
            self.pairs.collate_images,
            batch_size=JUDGED,
            size=self.spec.image_size,
            workers=self.settings.workers,
            crop=self.pairs.crop,
            pictures=self.pairs.features.image is None,
        )

    def write(self, model: Model, batches: Iterable[Batch], writing: Writing | None = None) -> dict[int, str]:
        """Write about pictures.

        Returns:
            The best caption for each row.

        Raises:
            UserError: when the model cannot write.
        """
        if not isinstance(model, Captioner):
            raise cannot(model, Captioner)
        device = next(model.parameters()).device
        writing = self.settings.writing() if writing is None else writing
        found: dict[int, str] = {}
        for batch in batches:
            written = model.write(batch.to(device), writing)
            texts = read(self.tokenizer, written.tokens[:, 0])
            found |= dict(zip(batch.need("pair_id").tolist(), texts, strict=True))
        return found

    def score(self, model: Model, batches: Iterable[Batch]) -> dict[str, float]:
        """Score what a model writes: BLEU, ROUGE-L and CIDEr-D, and on scenes the share that is true.

        Returns:
            Scores by flat names; `words` is the mean length.
        """
        told = self.write(model, batches)
        rows = [self.source.row(row) for row in told]
        texts = list(told.values())
        scores = caption_scores(texts, [row.captions for row in rows])
        scores = {name: scores[name] for name in ("cider_d", "bleu1", "bleu4", "rouge_l")}
        if all("objects" in row.fields and "relations" in row.fields for row in rows):
            right = [truth(text, row.fields) for text, row in zip(texts, rows, strict=True)]
            scores["true"] = sum(right) / len(right)
        return scores | {"words": sum(len(line.split()) for line in lines(texts)) / len(texts)}


def read(tokenizer: Tokenizer, tokens: Int[Tensor, "n t"]) -> list[str]:
    """Turn written tokens into texts."""
    return [tokenizer.decode(row) for row in tokens.tolist()]


class CiderReward:
    """CIDEr-D of written captions against all captions of their picture, for self-critical training.

    Document frequencies are those of the training captions. The end of a caption is a word of its own: without it, what
    breaks off ("a dog on a") would earn as much as a sentence.

    Args:
        pairs: whose training rows.
    """

    def __init__(self, pairs: PairData) -> None:
        self.pairs = pairs

    def __call__(self, tokens: Int[Tensor, "n t"], pictures: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return what each text earns, from 0 to 10."""
        rows, known = self._known
        ended = (tokens == self.pairs.spec.eos_id).any(1).tolist()
        texts = lines(read(self.pairs.tokenizer, tokens))
        texts = [f"{text} {END}" if end else text for text, end in zip(texts, ended, strict=True)]
        images = np.searchsorted(rows, pictures.cpu().numpy())
        return torch.from_numpy(known.cider(texts, images)).float()

    @cached_property
    def _known(self) -> tuple[Int64[np.ndarray, " n"], References]:
        """Take the training captions apart, once and only where a reward is asked for."""
        source = self.pairs.source
        rows = np.sort(self.pairs.readable(source.rows("train")))
        texts = [[f"{line} {END}" for line in lines(source.row(row).captions)] for row in rows.tolist()]
        return rows, References(texts)


def facts(source: Source, config: Config, settings: Settings) -> tuple[Tokenizer, DataSpec]:
    """Return a tokenizer trained on the captions, and the facts for a captioner.

    Raises:
        UserError: when the system is none, or the data has no captions.
    """
    if not isinstance(config, CaptionConfig):
        raise UserError("this system has no settings of a captioner, so it does not learn to write")
    source.need_captions()
    tokenizer = Tokenizer.train(source.texts(source.rows("train")), vocabulary=config.text_vocabulary)
    return tokenizer, spec_for(tokenizer, image_size=image_size_for(config), context=config.text_context)


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
) -> CaptionData:
    """Join a source and a model; with `settings.cache`, a frozen tower is asked once and its outputs kept on disk.

    Args:
        source: the data.
        model: built or loaded; one that learns from rewards gets CIDEr-D.
        tokenizer: of its words.
        spec: it was built for.
        settings: how to read and write captions.
        split: the rows that will be used.
        seed: of order and captions.
        device: where a frozen tower computes.
    """
    crop = model.image_tower.crop if isinstance(model, Sighted) else "squash"
    features = Features()
    if settings.cache and isinstance(model, Sighted):
        still = settings.augment == "none"
        features = compute_features(source, model, tokenizer, spec, source.rows(split), still=still, device=device)
    pairs = PairData(source, tokenizer, spec, settings.pairs(), crop=crop, features=features, seed=seed)
    if isinstance(model, Rewarded):
        model.reward_by(CiderReward(pairs))
    return CaptionData(pairs, settings)
