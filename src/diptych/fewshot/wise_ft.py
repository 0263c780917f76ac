"""WiSE-FT: fine-tune the image side on the shots, then go only part of the way, so that what was known is not lost.

Reference:
    Wortsman et al. 2021, arXiv 2109.01903: theta = (1 - a) theta_0 + a theta_1. They fine-tune a classifier with the
    image tower; here the classes stay the vectors of their names, so that the space remains one of pictures and texts.
    They choose a on the test set or take 0.5; here validation chooses it. Batch norms and dropout stay as in use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.batch import Batch
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder

SHARES = tuple(step / 10 for step in range(11))
Weights: TypeAlias = "Mapping[str, Tensor]"
BatchMaker: TypeAlias = "Callable[[Int[Tensor, ' k']], Batch]"


class TuneConfig(Config):
    """How the image side is fine-tuned."""

    epochs: int = Field(default=10, ge=1, description="over the shots")
    lr: float = Field(default=1e-4, gt=0, description="of AdamW, falling along a cosine")
    batch_size: int = Field(default=32, gt=0, description="pictures a step")


class ImageSide:
    """A copy of a model of which only what makes the vectors of pictures is trained; the model itself stays.

    Args:
        model: to be copied.
        example: a batch of pictures: the parameters that it gives a gradient are the image side.

    Raises:
        UserError: when nothing of the image side can be trained.
    """

    def __init__(self, model: Model, example: Batch) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(True)
        if not isinstance(self.model, PairEncoder):
            raise cannot(model, PairEncoder)
        self.encoder: PairEncoder = self.model
        named = dict(self.model.named_parameters())
        vectors = self.encoder.encode_image(example)
        if not vectors.requires_grad:
            raise UserError("nothing of the image side can be fine-tuned: all of it is frozen")
        found = torch.autograd.grad(vectors.sum(), list(named.values()), allow_unused=True)
        self.parts = {name: part for (name, part), grad in zip(named.items(), found, strict=True) if grad is not None}
        self.before = {name: part.detach().clone() for name, part in self.parts.items()}
        self.model.requires_grad_(False)

    @torch.no_grad()
    def put(self, weights: Weights) -> None:
        """Write weights into the copy."""
        for name, part in self.parts.items():
            part.copy_(weights[name])

    def tune(
        self,
        batches: BatchMaker,
        label: Int[Tensor, " n"],
        text: Float[Tensor, "c d"],
        *,
        scale: float,
        config: TuneConfig,
        seed: int,
    ) -> Weights:
        """Fine-tune from the first weights on and return what they became.

        Args:
            batches: makes a batch of the shots at some places.
            label: classes of all shots.
            text: vectors of the classes, which stay.
            scale: what cosines are multiplied with.
            config: how long and how fast.
            seed: of the order.
        """
        self.put(self.before)
        generator = torch.Generator().manual_seed(seed)
        steps = config.epochs * -(-len(label) // config.batch_size)
        with _trained(self.parts):
            optimizer = torch.optim.AdamW(self.parts.values(), lr=config.lr, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for _ in range(config.epochs):
                for places in torch.split(torch.randperm(len(label), generator=generator), config.batch_size):
                    vectors = self.encoder.encode_image(batches(places))
                    loss = F.cross_entropy(scale * vectors @ text.T, label[places.to(label.device)])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
        return {name: part.detach().clone() for name, part in self.parts.items()}


def interpolate(before: Weights, after: Weights, share: float) -> Weights:
    """Return (1 - share) * before + share * after, of every weight; the ends are exact."""
    if share in (0.0, 1.0):
        return dict(after if share else before)
    return {name: torch.lerp(before[name], after[name], share) for name in before}


@contextmanager
def _trained(parts: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    for part in parts.values():
        part.requires_grad_(True)
    try:
        yield
    finally:
        for part in parts.values():
            part.requires_grad_(False)
            part.grad = None
