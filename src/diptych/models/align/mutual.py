"""Mutual feedback: what one modality knows teaches the other, beside the contrast that brings both into one space.

One way (`feedback="one-way"`), captions teach the picture encoder: from its grid a decoder tells the caption forwards
and another backwards. Two ways (the default), pictures teach the text encoder too: it guesses hidden words while it
looks at the grid, and at those words both sides predict, each learning from the other's chances. The decoders are for
training alone; search uses the two towers.

Reference:
    Desai & Johnson 2020, arXiv 2006.06666 (VirTex, captions both ways; no contrast there); Sariyildiz et al. 2020,
    arXiv 2008.01392 (ICMLM, hidden words guessed with the picture; there by a text model that stays frozen); Zhang et
    al. 2017, arXiv 1706.00384 (mutual learning; there by turns, here in one step with stopped gradients). A caption
    told backwards keeps its begin and end marks where they are. The hidden word is the unknown token. Frozen towers
    may be read (`image_read=cells`), but feedback cannot move them: last:N or lora:R lets it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec, States
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Coupled, Loss
from diptych.core.runtime import mean_over_processes
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.dual import DualConfig, DualEncoder
from diptych.encoders.offers import Telling
from diptych.encoders.towers import build_image, build_text
from diptych.nn.cross import CrossBlock
from diptych.objectives.contrastive import contrastive
from diptych.objectives.mutual import mutual_kl

GOLDEN = 0.5 * (5**0.5 - 1)


class Config(DualConfig):
    """What mutual feedback is made of; towers and readers are inherited."""

    text_pool: str = Field(default="mean", description="transformer: mean (a hidden word sees both sides) or last")
    feedback: Literal["one-way", "two-way"] = Field(
        default="two-way", description="captions teach the picture encoder, or each encoder teaches the other"
    )
    decoder_dim: int = Field(default=128, gt=0, description="width of the decoders of captions")
    decoder_layers: int = Field(default=1, ge=1, description="blocks of each")
    decoder_heads: int = Field(default=4, gt=0, description="attention heads")
    hide: float = Field(default=0.3, gt=0, lt=1, description="two-way: share of a text's words that is hidden")
    contrast_weight: float = Field(
        default=1.0, ge=0, description="of finding the partner; without it there is no search"
    )
    caption_weight: float = Field(default=0.3, ge=0, description="of telling the caption, forwards and backwards")
    masked_weight: float = Field(default=0.3, ge=0, description="two-way: of guessing hidden words")
    mutual_weight: float = Field(default=0.1, ge=0, description="two-way: of agreeing on hidden words")


class Teller(nn.Module):
    """A causal transformer that tells a caption word by word while it looks at a grid.

    Args:
        dim: width of a word.
        context: the most words.
        grid: width of the grid's places.
        layers: blocks.
        heads: attention heads.
    """

    def __init__(self, dim: int, *, context: int, grid: int, layers: int, heads: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.01 * torch.randn(context, dim))
        self.blocks = nn.ModuleList(CrossBlock(dim, heads, context=grid, causal=True) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, words: Float[Tensor, "b t d"], grid: States) -> Float[Tensor, "b t d"]:
        """Return for each place what is known before it: all words to its left and the grid; nothing at place 0."""
        x = words + self.positions[: words.shape[1]]
        for block in self.blocks:
            x = block(x, grid.tokens, None, grid.mask)
        return F.pad(self.norm(x)[:, :-1], (0, 0, 1, 0))


class Mutual(DualEncoder, Coupled, AfterStep, Telling):
    """Two towers, two tellers of captions, and for the way back a block in which words look at the picture."""

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__(image, text, config)
        self.config, self.hidden_id = config, spec.unk_id if spec.unk_id >= 0 else spec.pad_id
        dim, heads = config.decoder_dim, config.decoder_heads
        self.words = nn.Embedding(spec.vocabulary, dim)
        nn.init.normal_(self.words.weight, std=dim**-0.5)
        self.forwards, self.backwards = (
            Teller(dim, context=spec.context, grid=image.token_dim, layers=config.decoder_layers, heads=heads)
            for _ in range(2)
        )
        two_way = config.feedback == "two-way"
        self.of_text = nn.Linear(text.token_dim, dim) if two_way else None
        self.at_picture = CrossBlock(dim, heads, context=image.token_dim) if two_way else None
        self.guess_norm = nn.LayerNorm(dim) if two_way else None

    def told(self, batch: Batch, grid: States) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d"]]:
        """Return what is known at each place from the grid and the words before it, and from it and those after it."""
        tokens, order = batch.need("tokens"), reading_order(batch.need("token_mask"))
        forwards = self.forwards(self.words(tokens), grid)
        backwards = self.backwards(self.words(tokens.gather(1, order)), grid)
        # the order is its own inverse: what was told of the reversed text comes back to its words
        return forwards, backwards.gather(1, order.unsqueeze(-1).expand_as(backwards))

    def guessed(self, batch: Batch, grid: States, hidden: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return what is known at each place from the words that are not hidden and the grid."""
        assert self.of_text is not None
        assert self.at_picture is not None
        assert self.guess_norm is not None
        mask = batch.need("token_mask")
        read = self.text_tower(torch.where(hidden, self.hidden_id, batch.need("tokens")), mask)
        known: Tensor = self.guess_norm(self.at_picture(self.of_text(read.tokens), grid.tokens, mask, grid.mask))
        return known

    def logits(self, known: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Return the logits of each word; the table of words serves both ends."""
        return F.linear(known, self.words.weight)

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b _"], ...]:
        """Return vectors of pictures and texts, and for each pair the sums over its words of what feedback costs."""
        grid = batch.image_states
        if grid is None:
            grid = self.image_tower(batch.need("image"))
        tokens, mask = batch.need("tokens"), batch.need("token_mask")
        later = mask & (torch.arange(mask.shape[1], device=mask.device) > 0)  # nobody guesses the begin mark
        forwards, backwards = self.told(batch, grid)
        sums = [self.surprise(side, tokens, later) for side in (forwards, backwards)]
        if self.of_text is not None:
            hidden = hide(mask, share=self.config.hide, training=self.training)
            guessed = self.guessed(batch, grid, hidden)
            of_image = (self.logits(forwards[hidden]) + self.logits(backwards[hidden])) / 2
            disagreement = mutual_kl(of_image, self.logits(guessed[hidden]))
            sums += [self.surprise(guessed, tokens, hidden), _row_sums(disagreement, hidden)]
            sums.append(hidden.sum(1).to(sums[0].dtype))
        return self.encode_image(replace(batch, image_states=grid)), self.encode_text(batch), torch.stack(sums, dim=1)

    def surprise(
        self, known: Float[Tensor, "b t d"], tokens: Int[Tensor, "b t"], where: Bool[Tensor, "b t"]
    ) -> Float[Tensor, " b"]:
        """Return the cross-entropy of the words at some places, in nats, summed over each text."""
        logits = self.logits(known[where])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        each = F.cross_entropy(logits, tokens[where], reduction="none")
        return _row_sums(each, where)

    def couple(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> Loss:
        """Compare the whole batch, and divide what feedback costs by the words of every process."""
        image, text, sums = embeddings
        config, mask = self.config, batch.need("token_mask")
        words = _count((mask.sum(1) - 1).clamp(min=0).to(sums.dtype))
        terms = {
            "contrast": config.contrast_weight * contrastive(image, text, self.scale(), group=batch.pair_id),
            "forwards": config.caption_weight * sums[:, 0].sum() / words,
            "backwards": config.caption_weight * sums[:, 1].sum() / words,
        }
        if self.of_text is not None:
            hidden = _count(sums[:, 4].detach())
            terms["masked"] = config.masked_weight * sums[:, 2].sum() / hidden
            terms["mutual"] = config.mutual_weight * sums[:, 3].sum() / hidden
        parts = {name: term.detach() for name, term in terms.items()}
        return Loss(torch.stack(list(terms.values())).sum(), parts | {"scale": self.scale().detach()})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the weighted sum of the contrast in nats and of the feedback in nats a word."""
        return self.couple(self.embed(batch), batch)

    def after_step(self) -> None:
        """Keep the scale within its bound."""
        self.bound_scale()


def reading_order(mask: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Return the places that make a text read backwards between its first and last token; its own inverse."""
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = mask.sum(1, keepdim=True) - 1
    return torch.where((places > 0) & (places < last), last - places, places)


def hide(mask: Bool[Tensor, "b t"], *, share: float, training: bool) -> Bool[Tensor, "b t"]:
    """Choose words to hide, never the first or last token of a text; in evaluation the same, well spread places."""
    places = torch.arange(mask.shape[1], device=mask.device)
    inner = mask & (places > 0) & (places < mask.sum(1, keepdim=True) - 1)
    chance = torch.rand(mask.shape, device=mask.device) if training else (places * GOLDEN).frac()
    return inner & (chance < share)


def _row_sums(each: Float[Tensor, " n"], where: Bool[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Add up what belongs to each row."""
    return each.new_zeros(len(where)).index_add(0, where.nonzero()[:, 0], each)


def _count(rows: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return the sum over the mean process, at least nearly 0."""
    return mean_over_processes(rows.sum()).clamp(min=1e-6)


def build(config: Config, spec: DataSpec) -> Mutual:
    """Build the towers the config names for the data the spec describes, and the decoders.

    Raises:
        UserError: for a frozen image tower of which only the summary would be kept.
    """
    image = build_image(config, spec)
    if image.frozen and config.image_read != "cells":
        raise UserError(
            "mutual tells captions from the grid of the image tower, and of a frozen one only the summary is kept: "
            "set image_read=cells, or train some of it, as with image_train=last:1"
        )
    return Mutual(image, build_text(config, spec), config, spec)
