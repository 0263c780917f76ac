"""VSRN: regions of a picture reason about each other in a graph, then a GRU reads them into one vector.

The regions are the image tower's tokens, a ViT's patches or a ResNet's cells, so that no detector is needed. The
sentence is a vector beside it, and pictures are found by cosine as with any dual encoder.

Reference:
    Li et al. 2019, arXiv 1909.02701. Relation layers as in the paper: no softmax, divided by the number of regions,
    the identity at the start. It has 36 regions of a detector, here they are places of a grid; a head on the tower's
    summary is added to the GRU's last state (`read_image.head`), and the sentence is read by learned queries, not by a
    GRU of its own. The default loss is the contrastive one of the other systems; the paper's hinges on the hardest
    wrong partner are `objective="hardest"`. The second loss, writing the caption from the regions, is off
    (`caption_weight`); its writer is a GRU with attention, one layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Coupled, Loss
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import DualConfig, DualEncoder
from diptych.encoders.towers import build_image, build_text
from diptych.nn.graph import RegionGraph
from diptych.nn.reader import Reader
from diptych.nn.recurrent import Writer
from diptych.objectives.contrastive import contrastive
from diptych.objectives.triplet import triplet


class Config(DualConfig):
    """What a VSRN is made of; towers and the text's reader are inherited."""

    image_read: Literal["cells"] = Field(default="cells", description="the grid, whose places are the regions")
    text_read: Literal["summary", "cells"] = Field(default="cells", description="the summary, or its words as well")
    region_dim: int = Field(default=256, gt=0, description="width of a region in the graph")
    relation_layers: int = Field(default=4, ge=0, description="layers in which regions relate")
    gather: Literal["gru", "mean"] = Field(default="gru", description="from regions to one vector")
    objective: Literal["contrastive", "triplet", "hardest"] = Field(
        default="contrastive", description="a softmax over all, or hinges on all wrong partners or in time the hardest"
    )
    margin: float = Field(default=0.2, gt=0, description="by how much the right partner must win a hinge")
    hardest_after: int = Field(default=300, ge=0, description="steps until only the hardest wrong partner counts")
    caption_weight: float = Field(default=0.0, ge=0, description="of writing the caption from the regions")


class VSRN(DualEncoder, Coupled, AfterStep):
    """A dual encoder whose image side reasons over regions; the steps are counted for the way to the hardest."""

    steps: Tensor

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config, *, vocabulary: int) -> None:
        super().__init__(image, text, config)
        self.config = config
        graph = RegionGraph(
            image.token_dim,
            config.region_dim,
            layers=config.relation_layers,
            gather=config.gather,
            dropout=config.cell_dropout,
            standardise=config.standardise,
        )
        self.read_image = Reader(
            image.dim,
            config.dim,
            head=config.head,
            hidden=config.hidden,
            dropout=config.dropout,
            cell_dropout=config.cell_dropout,
            standardise=config.standardise,
            gather=graph,
        )
        self.writer = Writer(vocabulary, config.region_dim) if config.caption_weight > 0 else None
        self.log_scale.requires_grad_(config.objective == "contrastive")  # hinges have no temperature
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def graph(self) -> RegionGraph:
        """The graph of the image side."""
        assert isinstance(self.read_image.pool, RegionGraph)
        return self.read_image.pool

    def hardest(self) -> float:
        """Return the share of the hinges that looks at the hardest wrong partner alone, in [0, 1]."""
        if self.config.objective != "hardest":
            return 0.0
        return min(1.0, int(self.steps) / self.config.hardest_after) if self.config.hardest_after > 0 else 1.0

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b _"], ...]:
        """Encode both sides of each pair; where captions are written, a third column says how badly."""
        if self.writer is None:
            return self.encode_image(batch), self.encode_text(batch)
        if batch.tokens is None and batch.text_states is not None:
            raise UserError("caption_weight needs the words themselves, not features of them; set cache=false")
        states = batch.image_states
        if states is None:
            states = self.image_tower(batch.need("image"))
        nodes = self.graph.reason(states.tokens, states.mask)
        nll = self.writer.nll(batch.need("tokens"), batch.need("token_mask"), nodes, states.mask)
        return self.encode_image(replace(batch, image_states=states)), self.encode_text(batch), nll[:, None]

    def couple(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> Loss:
        """Compare every picture with every text of the whole batch, and add the captions' part."""
        ranking, parts = self._rank(embeddings[0], embeddings[1], batch)
        if self.writer is None:
            return Loss(ranking, parts)
        written = embeddings[2].mean()
        return Loss(ranking + self.config.caption_weight * written, {**parts, "caption": written.detach()})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the ranking loss, in nats or in units of the cosine, plus that of the captions in nats a word."""
        return self.couple(self.embed(batch), batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, and keep the scale within its bound."""
        self.steps += 1
        self.bound_scale()

    def _rank(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        if self.config.objective == "contrastive":
            scale = self.scale()
            total = contrastive(image, text, scale, group=batch.pair_id)
            return total, {"contrastive": total.detach(), "scale": scale.detach()}
        share = self.hardest()
        total = triplet(image, text, margin=self.config.margin, hardest=share, group=batch.pair_id)
        return total, {"triplet": total.detach(), "hardest": torch.tensor(share, device=total.device)}


def build(config: Config, spec: DataSpec) -> VSRN:
    """Build the towers the config names and the graph for the data the spec describes."""
    return VSRN(build_image(config, spec), build_text(config, spec), config, vocabulary=spec.vocabulary)
