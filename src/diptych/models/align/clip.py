"""CLIP: an image tower and a text tower meet in one space, trained so that a picture finds its own words.

Any pair of towers will do: the paper's ViT or ResNet with a causal text transformer, trained from scratch at any
size, or pretrained ones that are frozen, partly frozen, adapted (LoRA) or trained. From frozen towers the joint space
can read the whole grid and every word (`image_read="attention"`), not only the towers' summaries.

Reference:
    Radford et al. 2021, arXiv 2103.00020. The loss is exact at every batch size and knows that two captions of one
    picture are both right; the paper counts them as wrong for each other. The clamp of the scale to 100 is applied to
    the parameter after each step.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec, States
from diptych.core.model import AfterStep, Coupled, Loss, Model, PairEncoder
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.offers import Towered
from diptych.encoders.towers import TowerConfig, build_image, build_text
from diptych.nn.head import Head
from diptych.nn.pool import QueryPool
from diptych.objectives.contrastive import contrastive

Read = Literal["summary", "attention"]


class Config(TowerConfig):
    """What a CLIP is made of; the towers' fields are inherited."""

    dim: int = Field(default=256, gt=0, description="width of the joint space")
    head: Literal["linear", "mlp"] = Field(default="linear", description="from each tower into the joint space")
    hidden: int = Field(default=1024, gt=0, description="width inside an mlp head")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in the heads")
    image_read: Read = Field(default="summary", description="the image tower's summary, or its grid as well")
    text_read: Read = Field(default="summary", description="the text tower's summary, or its words as well")
    read_queries: int = Field(default=4, gt=0, description="learned queries of attention")
    read_dim: int = Field(default=256, gt=0, description="width of each query's answer")
    read_heads: int = Field(default=8, gt=0, description="heads of attention")
    scale: float = Field(default=1 / 0.07, gt=0, description="inverse temperature to begin with")
    scale_max: float = Field(default=100.0, gt=0, description="the learned scale never passes this")


class Reader(nn.Module):
    """From a tower's states to a unit vector in the joint space."""

    def __init__(self, width: int, read: Read, config: Config) -> None:
        super().__init__()
        self.pool: QueryPool | None = None
        self.norm: nn.LayerNorm | None = None
        if read == "attention":
            self.norm = nn.LayerNorm(width)
            self.pool = QueryPool(config.read_dim, config.read_heads, queries=config.read_queries, context=width)
            width += config.read_queries * config.read_dim
        self.head = Head(width, config.dim, kind=config.head, hidden=config.hidden, dropout=config.dropout)

    def forward(self, states: States) -> Float[Tensor, "b d"]:
        """Pool and project."""
        read = states.summary
        if self.pool is not None and self.norm is not None:
            asked = self.pool(self.norm(states.tokens), states.mask)
            read = torch.cat([read, asked.flatten(1)], dim=1)
        return F.normalize(self.head(read).float(), dim=1)


class CLIP(Model, Coupled, AfterStep, PairEncoder, Towered):
    """Two towers, a reader for each, and the learned scale (stored as its logarithm, as in the paper)."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__()
        self.image_tower, self.text_tower = image, text
        self.read_image = Reader(image.dim, config.image_read, config)
        self.read_text = Reader(text.dim, config.text_read, config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.log_scale_max = math.log(config.scale_max)

    def encode_image(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors for pictures, or for what a frozen tower made of them."""
        states = batch.image_states
        return self.read_image(self.image_tower(batch.need("image")) if states is None else states)  # type: ignore[no-any-return]

    def encode_text(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors for texts, or for what a frozen tower made of them."""
        states = batch.text_states
        if states is None:
            states = self.text_tower(batch.need("tokens"), batch.need("token_mask"))
        return self.read_text(states)  # type: ignore[no-any-return]

    def scale(self) -> Float[Tensor, ""]:
        """Return the learned scale."""
        return self.log_scale.exp()

    def reads_image_tokens(self) -> bool:
        """Say whether the joint space reads the grid."""
        return self.read_image.pool is not None

    def reads_text_tokens(self) -> bool:
        """Say whether the joint space reads every word."""
        return self.read_text.pool is not None

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Encode both sides of each pair."""
        return self.encode_image(batch), self.encode_text(batch)

    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Compare every picture with every text of the whole batch."""
        image, text = embeddings
        scale = self.scale()
        total = contrastive(image, text, scale, group=batch.pair_id)
        return Loss(total, {"contrastive": total.detach(), "scale": scale.detach()})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the symmetric contrastive loss in nats."""
        return self.couple(self.embed(batch), batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale within its bound."""
        self.log_scale.clamp_(max=self.log_scale_max)


def build(config: Config, spec: DataSpec) -> CLIP:
    """Build the towers the config names for the data the spec describes."""
    return CLIP(build_image(config, spec), build_text(config, spec), config)
