"""Tiny data and systems of every kind that the trainer knows; also run by the child processes of the tests."""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import AfterStep, Coupled, Loss, Model, Phased, Pretrained, Staged
from diptych.core.runtime import gather, rank, world
from diptych.tasks.task import Task

SIZE, WORDS = 4, 11


class Pairs:
    """Pictures of noise whose words tell their brightest corner; any epoch, from any batch on."""

    def __init__(self, rows=44, batch_size=8, *, rank=0, world=1, seed=3, kill_at=None, signal_at=None, only=None):
        made = torch.Generator().manual_seed(seed)
        self.image = torch.rand(rows, 3, SIZE, SIZE, generator=made)
        self.label = self.image.mean(1).flatten(1).argmax(1) % WORDS
        self.tokens = torch.stack([self.label, torch.randint(WORDS, (rows,), generator=made)], 1)
        self.batch_size, self.rank, self.world = batch_size, rank, world
        here = only is None or only == rank
        self.given, self.kill_at, self.signal_at = 0, kill_at if here else None, signal_at if here else None
        self.skipped: list[str] = []

    def __len__(self):
        return len(self.image) // (self.batch_size * self.world)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = torch.from_numpy(np.random.default_rng([epoch, 5]).permutation(len(self.image)))
        for index in range(start, len(self)):
            size = self.batch_size * self.world
            rows = order[index * size : (index + 1) * size][self.rank * self.batch_size :][: self.batch_size]
            self.given += 1
            if self.given == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.signal_at is not None and self.given == self.signal_at[0]:
                os.kill(os.getpid(), self.signal_at[1])
            mask = torch.ones(len(rows), 2, dtype=torch.bool)
            yield Batch(image=self.image[rows], tokens=self.tokens[rows], token_mask=mask, label=self.label[rows])


class Twins(Model, Coupled, AfterStep):
    """Two towers and a temperature."""

    def __init__(self, *, dropout=0.0, wild=False):
        super().__init__()
        self.image = nn.Linear(3 * SIZE * SIZE, 6)
        self.words = nn.Embedding(WORDS, 6)
        self.text = nn.Linear(6, 6, bias=False)
        self.norm = nn.LayerNorm(6)
        self.drop = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.wild = wild
        self.register_buffer("steps", torch.zeros(()))

    def embed(self, batch: Batch) -> tuple[Tensor, ...]:
        image = self.norm(self.image(self.drop(batch.need("image").flatten(1))))
        text = self.text(self.drop(self.words(batch.need("tokens")).mean(1)))
        return F.normalize(image, dim=1), F.normalize(text, dim=1)

    def couple(self, embeddings: tuple[Tensor, ...], batch: Batch) -> Loss:
        image, text = embeddings
        target = torch.arange(len(image)) + rank() * len(image)
        there, back = self.scale.exp() * image @ gather(text).T, self.scale.exp() * text @ gather(image).T
        total = (F.cross_entropy(there, target) + F.cross_entropy(back, target)) / 2
        return Loss(total, {"scale": self.scale.detach().clone()})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        return self.couple(self.embed(batch), batch)

    def after_step(self) -> None:
        self.scale.clamp_(max=2.05)
        self.steps += 1
        if self.wild:  # numbers from each generator, so that each must be taken up again
            self.image.bias += 1e-3 * (np.random.rand() + random.random() + torch.rand(()))


class Guess(Model):
    """An ordinary classifier whose loss is a mean over examples; one part of it is never used."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3 * SIZE * SIZE, 8), nn.Linear(8, WORDS)])
        self.unused = nn.Linear(2, 2)
        self.gain = nn.Parameter(torch.tensor(1.0))

    def logits(self, batch: Batch) -> Tensor:
        hidden = torch.tanh(self.layers[0](batch.need("image").flatten(1)))
        return self.layers[1](hidden) * self.gain

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        return Loss(F.cross_entropy(self.logits(batch), batch.need("label")))


class Breaking(Guess):
    """Its loss, or only its gradient, is no number from the sixth batch on, perhaps in one process only."""

    def __init__(self, how="loss", only=None):
        super().__init__()
        self.how, self.calls, self.only = how, 0, only

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        found = super().loss(batch).total
        self.calls += self.training
        if self.calls < 6 or self.only not in (None, rank()):
            return Loss(found)
        return Loss(found * math.nan if self.how == "loss" else found + (self.gain * 0).sqrt())


class Gan(Model, Phased):
    """A generator of pictures and a critic that alternate; noise comes from torch's generator."""

    def __init__(self):
        super().__init__()
        self.make = nn.Linear(2, 3 * SIZE * SIZE)
        self.judge = nn.Linear(3 * SIZE * SIZE, 1)
        self.asked: list[tuple[str, bool, bool]] = []

    def phases(self) -> dict[str, list[nn.Parameter]]:
        return {"critic": list(self.judge.parameters()), "generator": list(self.make.parameters())}

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        self.asked.append((phase, self.make.weight.requires_grad, self.judge.weight.requires_grad))
        real = batch.need("image").flatten(1)
        fake = self.make(real[:, :2])
        if phase == "generator":
            return Loss(F.softplus(-self.judge(fake)).mean())
        return Loss((F.softplus(-self.judge(real)) + F.softplus(self.judge(fake.detach()))).mean())


class Ladder(Model, Staged):
    """A picture code, and then words from the code."""

    def __init__(self):
        super().__init__()
        self.code = nn.Linear(3 * SIZE * SIZE, 4)
        self.draw = nn.Linear(4, 3 * SIZE * SIZE)
        self.word = nn.Linear(4, WORDS)
        self.stage = ""
        self.entered: list[str] = []

    def stages(self) -> tuple[str, ...]:
        return ("code", "word")

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.entered.append(stage)
        first = stage == "code"
        for part, learns in ((self.code, first), (self.draw, first), (self.word, not first)):
            part.requires_grad_(learns)

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        pixels = batch.need("image").flatten(1)
        code = torch.tanh(self.code(pixels))
        if self.stage == "code":
            return Loss((self.draw(code) - pixels).square().mean())
        return Loss(F.cross_entropy(self.word(code), batch.need("label")))


class Old(nn.Module, Pretrained):
    """A layer that came from elsewhere, and an adapter on it."""

    def __init__(self):
        super().__init__()
        self.layer, self.adapter = nn.Linear(4, 4), nn.Linear(4, 4)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        return list(self.layer.parameters())


def score(model: Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Judge by the loss: at most 0."""
    losses = [model.loss(batch).total.item() for batch in batches]
    return {"minus_loss": -sum(losses) / len(losses)}


def task(**given) -> Task:
    train = Pairs(**{"rank": rank(), "world": world(), **given})
    return Task(DataSpec(), train, valid=Pairs(16, 8, seed=9), evaluators=(score,), monitor="minus_loss")


RECORD = {"system": "toy", "config": {"dim": 6}, "spec": {"vocabulary": WORDS}, "data": {"name": "noise"}}
