"""Alone: learn from pictures without their words, or from words without pictures, judged by the loss on others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from diptych.core import runtime
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.towers import context_for, tokenizer_for
from diptych.models.alone import AloneConfig, OneSided
from diptych.tasks import pictures
from diptych.tasks.data import Judge, TaskData, spec_for
from diptych.tasks.held_out import MONITOR, held_out
from diptych.tasks.sentences import lines_of


class Settings(pictures.Settings):
    """How one side is read from the data."""

    texts: str = Field(default="", description="text: a file of further sentences to learn from, one a line")


class TextBatches:
    """Batches of texts, exact and without state: the order is a function of (seed, epoch).

    Args:
        texts: all of a split.
        tokenizer: of the text tower.
        context: tokens of a text at most.
        batch_size: texts in a batch of all processes together.
        seed: of the order.
        training: shuffle, cut among processes, and leave out the last, smaller batch.

    Raises:
        UserError: when the processes cannot share a batch evenly.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: Tokenizer, *, context: int, batch_size: int, seed: int, training: bool
    ) -> None:
        self.texts, self.tokenizer, self.context = texts, tokenizer, context
        self.seed, self.training = seed, training
        self.whole = min(batch_size, len(texts)) if training else batch_size
        self.world, self.rank = (runtime.world(), runtime.rank()) if training else (1, 0)
        if self.whole % self.world:
            fits = max(1, self.whole // self.world) * self.world
            raise UserError(f"batch_size {self.whole} is not a multiple of {self.world} processes; use {fits}")

    @property
    def batch_size(self) -> int:
        """Texts in a full batch of this process."""
        return self.whole // self.world

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return len(self.texts) // self.whole if self.training else -(-len(self.texts) // self.whole)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch from `start` on."""
        order = np.arange(len(self.texts))
        if self.training:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.texts))
        for number in range(start, len(self)):
            chosen = order[number * self.whole : (number + 1) * self.whole]
            each = len(chosen) // self.world
            own = chosen[self.rank * each : (self.rank + 1) * each] if self.world > 1 else chosen
            tokens, mask = self.tokenizer([self.texts[place] for place in own.tolist()], self.context)
            yield Batch(tokens=tokens, token_mask=mask)


@dataclass(frozen=True, slots=True)
class TextData(TaskData):
    """A source whose pictures are not looked at.

    Args:
        source: texts are its captions.
        tokenizer: of the text tower.
        spec: facts the model was built for.
        settings: batch size and the like.
        seed: of the order.
    """

    source: Source
    tokenizer: Tokenizer
    spec: DataSpec
    settings: Settings
    seed: int = 0

    def training(self) -> TextBatches:
        """Return shuffled texts.

        Raises:
            UserError: when there are none.
        """
        texts = [*self.source.texts(self.source.rows("train")), *lines_of(self.settings.texts)]
        if not texts:
            raise UserError(f"{self.source.name} has no captions to learn from in its training split")
        return self._batches(texts, training=True)

    def judged(self, split: str, model: Model) -> TextBatches | None:
        """Return every caption of a split once; None when there are none."""
        texts = list(self.source.texts(self.source.rows(split)))
        return self._batches(texts, training=False) if texts else None

    def judge(self, model: Model) -> Judge:
        """Judge by the loss."""
        return Judge((held_out,), MONITOR)

    def _batches(self, texts: Sequence[str], *, training: bool) -> TextBatches:
        return TextBatches(
            texts,
            self.tokenizer,
            context=self.spec.context,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            training=training,
        )


def facts(source: Source, config: Config, settings: Settings) -> tuple[Tokenizer, DataSpec]:
    """Return the tokenizer and the facts for a model of one side.

    Raises:
        UserError: when the system does not say of which side it is, or the data has no texts for one that reads them.
    """
    if not isinstance(config, AloneConfig):
        raise UserError("this system has no setting modality, so it does not learn from one side alone")
    if config.modality == "image":
        return pictures.facts(source, config, settings)
    source.need_captions()

    def texts() -> Iterator[str]:
        yield from source.texts(source.rows("train"))
        yield from lines_of(settings.texts)

    tokenizer = tokenizer_for(config, texts())
    return tokenizer, spec_for(tokenizer, context=context_for(config))


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
) -> TaskData:
    """Join a source and a model: its texts to a model of texts; nothing is computed beforehand."""
    if isinstance(model, OneSided) and model.modality == "text":
        return TextData(source, tokenizer, spec, settings, seed)
    return pictures.join(source, model, tokenizer, spec, settings, split=split, seed=seed, device=device)
