"""Slow: a moving average of a dual encoder that teaches it, and a queue of what it made of earlier batches.

Reference:
    Li et al. 2021, arXiv 2107.07651 (ALBEF); He et al. 2019, arXiv 1911.05722 (MoCo, the queue). Three things differ.
    The encoder is compared with its own vectors of the batch and with slow ones of the queue alone, so that without
    soft targets and queue the loss is CLIP's; ALBEF has slow ones of the batch too. The slow copy has no dropout. The
    queue begins empty, not with random vectors, and knows which rows show the same picture.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.runtime import gather
from diptych.encoders.dual import DualConfig, DualEncoder
from diptych.nn.standardise import Standardise
from diptych.objectives.distill import Queue, momentum_contrastive


class SlowConfig(DualConfig):
    """A dual encoder that may be taught by its own moving average."""

    alpha: float = Field(default=0.4, ge=0, le=1, description="momentum: share of the soft targets in the end")
    alpha_steps: int = Field(default=1000, ge=0, description="momentum: steps over which that rises from 0")
    momentum: float = Field(default=0.995, ge=0, lt=1, description="momentum: of the average that stays at each step")
    queue: int = Field(default=0, ge=0, description="momentum: pairs of earlier batches to compare with as well")


class Slow(nn.Module):
    """The average, in evaluation mode for good; it is saved with the encoder that it follows.

    What is frozen in the encoder, and so the same in the average, is shared.

    Args:
        live: the encoder to follow, as yet without this.
        config: how slowly, and how long the queue is.
    """

    steps: Tensor
    waiting: Tensor
    queue_image: Tensor
    queue_text: Tensor
    queue_group: Tensor

    def __init__(self, live: DualEncoder, config: SlowConfig) -> None:
        super().__init__()
        shared: list[nn.Module] = [tower for tower in (live.image_tower, live.text_tower) if tower.frozen]
        shared += [module for module in live.modules() if isinstance(module, Standardise)]
        self.encoder: DualEncoder = deepcopy(live, {id(module): module for module in shared}).requires_grad_(False)
        self.config = config
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("waiting", torch.zeros((), dtype=torch.long))
        for side in ("image", "text"):
            self.register_buffer(f"queue_{side}", torch.zeros(config.queue, config.dim))
        self.register_buffer("queue_group", torch.full((config.queue,), -1))
        self._fresh: Queue | None = None
        self.train()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's signature)
        """Stay in evaluation mode."""
        super().train(False)
        self.training = mode
        return self

    def alpha(self) -> float:
        """Return the share of the soft targets at this step."""
        done = int(self.steps) / self.config.alpha_steps if self.config.alpha_steps > 0 else 1.0
        return self.config.alpha * min(1.0, done)

    @torch.no_grad()
    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Encode both sides of each pair."""
        return self.encoder.encode_image(batch), self.encoder.encode_text(batch)

    def contrast(
        self,
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        slow: tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]],
        scale: Float[Tensor, ""],
        batch: Batch,
    ) -> Float[Tensor, ""]:
        """Return the contrastive loss with the targets of this step, in nats; in training the queue learns the rows.

        Args:
            image: of the encoder that learns.
            text: of the encoder that learns.
            slow: what `embed` made of the same batch.
            scale: inverse temperature.
            batch: tells which rows show one picture.
        """
        group, filled = batch.pair_id, int(self.waiting)
        queue = Queue(self.queue_image[:filled], self.queue_text[:filled], self.queue_group[:filled])
        if self.config.queue > 0 and self.training and torch.is_grad_enabled():
            names = torch.full_like(slow[0][:, 0], -1, dtype=torch.long) if group is None else group
            self._fresh = Queue(gather(slow[0].detach()), gather(slow[1].detach()), gather(names))
        return momentum_contrastive(
            image, text, scale, *slow, alpha=self.alpha(), group=group, queue=queue if filled > 0 else None
        )

    @torch.no_grad()
    def follow(self, live: DualEncoder) -> None:
        """Move the average towards the encoder, and queue the rows of the step that was taken.

        After the first step the average is the encoder, which may have begun with the weights of another run.
        """
        begun = int(self.steps) > 0
        theirs, statistics = dict(live.named_parameters()), dict(live.named_buffers())
        for name, weight in self.encoder.named_parameters():
            if weight is not theirs[name]:
                weight.lerp_(theirs[name], 1 - self.config.momentum if begun else 1.0)
        for name, statistic in self.encoder.named_buffers():
            if statistic is not statistics[name]:
                statistic.copy_(statistics[name])
        self.steps += 1
        if self._fresh is not None and begun:
            self._push(self._fresh)
        self._fresh = None

    def _push(self, fresh: Queue) -> None:
        """Put rows at the front; the oldest fall out."""
        length = self.config.queue
        for held, new in (
            (self.queue_image, fresh.image),
            (self.queue_text, fresh.text),
            (self.queue_group, fresh.group),
        ):
            held.copy_(torch.cat([new.to(held.dtype), held])[:length])
        self.waiting.copy_((self.waiting + len(fresh.group)).clamp(max=length))
