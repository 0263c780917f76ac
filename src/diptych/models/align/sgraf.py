"""SGRAF: each word looks for itself among the regions of a picture, and a small network judges how well all were found.

A picture is scored with a text by looking at both together: it takes the word that finds nothing to tell two sentences
of the same words apart. That costs far more than a product of two vectors, so the system keeps such vectors beside it:
they are one of the things judged, and a search finds its candidates by them.

Reference:
    Lee et al. 2018, arXiv 1803.08024 (SCAN: the attention; `reason="scan"` is its mean of cosines); Diao et al. 2021,
    arXiv 2101.01368 (SGRAF: similarity vectors, the graph SGR and the filter SAF). Regions are the image tower's
    tokens, not boxes of a detector; the global vectors are those of a dual encoder, trained beside by a contrastive
    loss (`global_weight`), not means that attend to themselves, and their cosine is added to the judgement, which so
    begins where they are (`add_cosine`). Messages go round once, not three times; the gates of SAF have no BatchNorm,
    and no sigmoid closes the score. "both" adds up two heads that learn together; the paper averages two models that
    learnt apart. The default loss is contrastive over the matrix of scores; the paper's hinges on the hardest wrong
    partner are `objective="hardest"`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych.core.batch import Batch, DataSpec, States
from diptych.core.model import AfterStep, Coupled, Loss, PairScorer
from diptych.core.runtime import gather, world
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import DualConfig, DualEncoder
from diptych.encoders.towers import build_image, build_text
from diptych.nn.matching import FilterReason, GraphReason, SimilarityVectors, missed, region_weights
from diptych.nn.pool import CellGather
from diptych.objectives.across import largest_over_processes
from diptych.objectives.contrastive import contrastive
from diptych.objectives.matching import score_contrastive
from diptych.objectives.triplet import score_triplet

AT_ONCE = 2**22
"""Numbers in the largest tensor of a piece: many caches long, and a large batch still fits."""

KEPT = 2**26
"""Numbers beyond which training computes a piece again in the backward pass rather than keep it."""


class Config(DualConfig):
    """What an SGRAF is made of; towers and readers of the global vectors are inherited."""

    image_read: Literal["cells"] = Field(default="cells", description="the grid, whose places are the regions")
    text_read: Literal["cells"] = Field(default="cells", description="every word")
    reason: Literal["sgr", "saf", "both", "scan"] = Field(
        default="both", description="graph, filter, both together, or the plain mean of cosines"
    )
    match_dim: int = Field(default=64, gt=0, description="width in which words look for regions")
    similarity_dim: int = Field(default=32, gt=0, description="width of a similarity vector")
    graph_steps: int = Field(default=1, gt=0, description="sgr: rounds of messages; the paper has 3")
    sharpness: float = Field(default=9.0, gt=0, description="of a word's attention over the regions")
    add_cosine: bool = Field(default=True, description="add the judgement to the cosine of the global vectors")
    objective: Literal["contrastive", "triplet", "hardest"] = Field(
        default="contrastive", description="a softmax over all, or hinges on all wrong partners or in time the hardest"
    )
    margin: float = Field(default=0.2, gt=0, description="by how much the right partner must win a hinge")
    hardest_after: int = Field(default=300, ge=0, description="steps until only the hardest wrong partner counts")
    global_weight: float = Field(default=1.0, gt=0, description="of the contrastive loss of the global vectors")


class Judge(nn.Module):
    """From what the words of a text missed in a picture, and how far the two are apart as a whole, to a logit."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.similarity_dim
        self.whole = SimilarityVectors(config.dim, width)
        self.word = SimilarityVectors(config.match_dim, width)
        self.graph = GraphReason(width, steps=config.graph_steps) if config.reason != "saf" else None
        self.filter = FilterReason(width) if config.reason != "sgr" else None

    def forward(
        self,
        image: Float[Tensor, "m e"],
        text: Float[Tensor, "n e"],
        difference: Float[Tensor, "m n t d"],
        mask: Bool[Tensor, "n t"],
    ) -> Float[Tensor, "m n"]:
        """Judge every picture with every text."""
        nodes = torch.cat([self.whole.outer(image, text)[:, :, None], self.word(difference)], dim=2)
        real = F.pad(mask, (1, 0), value=True).expand(len(image), -1, -1).flatten(0, 1)
        logits = [head(nodes.flatten(0, 1), real) for head in (self.graph, self.filter) if head is not None]
        return torch.stack(logits).sum(0).view(nodes.shape[:2])


class SGRAF(DualEncoder, PairScorer, Coupled, AfterStep):
    """A dual encoder whose candidates are judged word by word; the steps are counted for the way to the hardest."""

    steps: Tensor

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config) -> None:
        super().__init__(image, text, config)
        self.config = config
        self.region = nn.Sequential(nn.Dropout(config.cell_dropout), nn.Linear(image.token_dim, config.match_dim))
        self.word = nn.Sequential(nn.Dropout(config.cell_dropout), nn.Linear(text.token_dim, config.match_dim))
        self.judge = None if config.reason == "scan" else Judge(config)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def image_parts(self, batch: Batch) -> States:
        """Return the regions as unit vectors, and the global vector."""
        states = batch.image_states
        if states is None:
            states = self.image_tower(batch.need("image"))
        regions = self.region(_even(self.read_image.pool, states.tokens)).float()
        whole = self.encode_image(replace(batch, image_states=states))
        return States(F.normalize(regions, dim=2), states.mask, whole)

    def text_parts(self, batch: Batch) -> States:
        """Return the words as unit vectors, and the global vector."""
        states = batch.text_states
        if states is None:
            states = self.text_tower(batch.need("tokens"), batch.need("token_mask"))
        words = self.word(_even(self.read_text.pool, states.tokens)).float()
        whole = self.encode_text(replace(batch, text_states=states))
        return States(F.normalize(words, dim=2), states.mask, whole)

    def score(self, image: States, text: States) -> Float[Tensor, "m n"]:
        """Score every picture with every text, in units of the cosine.

        Texts of like length go together, piece by piece.
        """
        lengths = text.mask.sum(1)
        order = lengths.argsort()
        pictures, regions, width = image.tokens.shape
        row = pictures * max(regions, width, self.config.similarity_dim) * text.mask.shape[1]
        size = max(1, (AT_ONCE if image.tokens.device.type == "cpu" else KEPT) // max(1, row))
        again = torch.is_grad_enabled() and row * len(order) > KEPT
        scores = []
        for rows in torch.split(order, size):
            longest = max(1, int(lengths[rows].max()))
            piece = States(text.tokens[rows, :longest], text.mask[rows, :longest], text.summary[rows])
            scores.append(
                checkpoint(self._piece, image, piece, use_reentrant=False) if again else self._piece(image, piece)
            )
        return torch.cat(scores, dim=1)[:, order.argsort()]

    def _piece(self, image: States, text: States) -> Float[Tensor, "m n"]:
        with torch.autocast(image.tokens.device.type, enabled=False):  # close scores must not become ties
            weights = region_weights(image.tokens, image.mask, text.tokens, text.mask, sharpness=self.config.sharpness)
            difference = missed(weights, image.tokens, text.tokens)
            if self.judge is not None:
                judged: Tensor = self.judge(image.summary, text.summary, difference, text.mask)
                return judged + image.summary @ text.summary.T if self.config.add_cosine else judged
            cosine = (1 - difference.square().sum(-1) / 2) * text.mask
            return cosine.sum(2) / text.mask.sum(1).clamp(min=1)

    def hardest(self) -> float:
        """Return the share of the hinges that looks at the hardest wrong partner alone, in [0, 1]."""
        if self.config.objective != "hardest":
            return 0.0
        return min(1.0, int(self.steps) / self.config.hardest_after) if self.config.hardest_after > 0 else 1.0

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b _"], ...]:
        """Prepare both sides of each pair: global vectors, all regions and all words, and which are real."""
        image, text = self.image_parts(batch), self.text_parts(batch)
        masks = (side.mask.to(side.tokens.dtype) for side in (image, text))
        return image.summary, text.summary, image.tokens.flatten(1), text.tokens.flatten(1), *masks

    def couple(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> Loss:
        """Score this process's pictures with everybody's texts, and compare the global vectors as well."""
        image, text, regions, words, region_mask, word_mask = embeddings
        width = self.config.match_dim
        pictures = States(regions.view(len(regions), -1, width), region_mask > 0, image)
        texts = States(words.view(len(words), -1, width), word_mask > 0, text)
        scores = self.score(pictures, _of_everybody(texts))
        matched = self._rank(scores, batch.pair_id)
        scale = self.scale()
        alike = contrastive(image, text, scale, group=batch.pair_id)
        parts = {"matched": matched.detach(), "global": alike.detach(), "scale": scale.detach()}
        return Loss(matched + self.config.global_weight * alike, parts)

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the loss over all scores, in nats or as hinges, plus that of the global vectors in nats."""
        return self.couple(self.embed(batch), batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, and keep the scale within its bound."""
        self.steps += 1
        self.bound_scale()

    def _rank(self, scores: Float[Tensor, "b n"], group: Int[Tensor, " b"] | None) -> Float[Tensor, ""]:
        if self.config.objective == "contrastive":
            return score_contrastive(scores * self.scale(), group=group)
        return score_triplet(scores, margin=self.config.margin, hardest=self.hardest(), group=group)


def _even(pool: CellGather | None, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Bring the tokens to the scale at which the global vectors read them."""
    if pool is None or pool.even is None:
        return tokens
    even: Tensor = pool.even(tokens)
    return even


def _of_everybody(text: States) -> States:
    """Join the texts of all processes, padded to the longest of them."""
    if world() == 1:
        return text
    lacking = largest_over_processes(text.mask.shape[1], text.mask.device) - text.mask.shape[1]
    tokens, mask = F.pad(text.tokens, (0, 0, 0, lacking)), F.pad(text.mask, (0, lacking))
    return States(gather(tokens), gather(mask.to(torch.uint8)) > 0, gather(text.summary))


def build(config: Config, spec: DataSpec) -> SGRAF:
    """Build the towers the config names, the maps and the judge for the data the spec describes."""
    return SGRAF(build_image(config, spec), build_text(config, spec), config)
