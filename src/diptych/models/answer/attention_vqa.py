"""Attention VQA: the question looks at the cells of the picture, and what it sees and what was asked are fused.

With every `fusion` but two, stacked attention gathers what is seen, and the fusion makes one vector of that and the
question; `sum` is then the network of the paper. With `fusion=attention`, the cells look at the words and the words
at the cells; with `fusion=cross_attention`, the words look at each other and at the cells, layer by layer. What is
pooled of this is added to what the question says as a whole. Before any of it, the cells of a picture may look at each
other (`encoder_layers`), once for all questions, and the question may steer some convolutions over them (`film`).

Reference:
    Yang et al. 2015, Stacked Attention Networks, arXiv 1511.02274; Antol et al. 2015, VQA, arXiv 1505.00468; Anderson
    et al. 2017, arXiv 1707.07998 (soft targets); Perez et al. 2017, FiLM, arXiv 1709.07871. The fusions:
    `diptych.nn.fusion`, Tsai et al. 2019, arXiv 1906.00295, and Li et al. 2021, ALBEF, arXiv 2107.07651, for the two of
    attention. Any towers will do. New: in training some questions are
    asked without their picture (`blind`), so that a run knows what the question alone would have told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Fitted
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.offers import Reads, Towered
from diptych.encoders.towers import Count, build_image, build_text
from diptych.models.answering import AnswerConfig, AnswerModel, Question, read_question
from diptych.nn.cells import Cells
from diptych.nn.cross import CrossReader
from diptych.nn.film import FiLM
from diptych.nn.fusion import Fusion, build_fusion
from diptych.nn.hops import StackedAttention
from diptych.nn.streams import CrossStreams
from diptych.nn.transformer import Transformer

FusionName: TypeAlias = Literal[
    "attention", "cross_attention", "concat", "sum", "gated", "tensor", "low_rank", "mlb", "mutan", "weighted"
]


class Config(AnswerConfig):
    """What attention VQA is made of; the towers' fields are inherited."""

    fusion: FusionName = Field(default="attention", description="how what is seen and what was asked become one")
    encoder_layers: int = Field(
        default=0, ge=0, description="layers in which the cells of a picture look at each other"
    )
    hops: int = Field(default=2, ge=0, description="looks at the picture; 0: the mean of its cells; not of attention")
    fusion_width: Count = Field(default=24, description="tensor, mutan: features of each side before their products")
    rank: Count = Field(default=8, description="low_rank, mutan: terms of the sum")
    layers: Count = Field(default=1, description="attention, cross_attention: layers, of each stream")
    heads: Count = Field(default=4, description="attention, cross_attention, encoder_layers: heads")
    film: int = Field(default=0, ge=0, description="blocks in which the question steers how cells are read first")
    positions: bool = Field(default=True, description="tell each cell its place in the grid")
    places: Literal["learned", "fixed"] = Field(
        default="learned", description="how it is told: by a learned map of waves, or by a fixed table of sines"
    )
    blind: float = Field(default=0.1, ge=0, lt=1, description="share of questions asked without picture in training")


class AttentionVQA(AnswerModel, Fitted, Towered):
    """Two towers, a look, a fusion and a classifier.

    Args:
        image: the image tower.
        text: the text tower.
        config: of the system.
        spec: the data it is built for.
    """

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.image_tower, self.text_tower, self.blind = image, text, config.blind
        dim, fusion, hidden, dropout = config.dim, config.fusion, 2 * config.dim, config.dropout
        even = config.standardise and image.frozen
        self.cells = Cells(
            image.token_dim, image.dim, dim, positions=config.positions, places=config.places, standardise=even
        )
        self.encoder: Transformer | None = None
        if config.encoder_layers > 0:
            self.encoder = Transformer(dim, config.heads, config.encoder_layers, hidden=hidden, dropout=dropout)
        self.film = FiLM(dim, blocks=config.film) if config.film > 0 else None
        self.question = Question(text, dim, words="attention" in fusion, standardise=config.standardise)
        self.streams: CrossStreams | None = None
        self.reader: CrossReader | None = None
        self.hops: StackedAttention | None = None
        self.fusion: Fusion | None = None
        if fusion == "attention":
            self.streams = CrossStreams(dim, config.heads, config.layers, hidden=hidden, out=dim, dropout=dropout)
        elif fusion == "cross_attention":
            self.reader = CrossReader(dim, config.heads, config.layers, hidden=hidden, dropout=dropout)
        else:
            self.hops = StackedAttention(dim, hops=config.hops)
            self.fusion = build_fusion(
                fusion, (dim, dim), dim, width=config.fusion_width, rank=config.rank, dropout=dropout
            )

    def logits(self, batch: Batch) -> Float[Tensor, "b a"]:
        """Score every answer; without pictures from the questions alone."""
        scores: Tensor = self.choose(self.meet(batch))
        return scores

    def meet(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Make one vector of picture and question."""
        states = read_question(self.text_tower, batch)
        cells, mask, picture = self._see(batch)
        question = self.question(states)
        if self.film is not None:
            cells, picture = self.film(cells if picture is None else cells[picture], mask, question), None
        if self.reader is not None:
            words, real = self.question.read(states)
            told: Tensor = question + self.reader(words, real, cells, mask, picture)
            return told
        if self.streams is not None:
            words, real = self.question.read(states)
            each = cells if picture is None else cells.index_select(0, picture)
            both: Tensor = question + self.streams(each, mask, words, real)
            return both
        assert self.hops is not None
        assert self.fusion is not None
        seen, _ = self.hops(question, cells, mask, picture)
        fused: Tensor = self.fusion((seen, question))
        return fused

    def reads(self) -> Reads:
        """Say what is read of the towers' outputs."""
        return Reads(grid=True, words=self.hops is None)

    def fit(self, batches: Iterable[Batch]) -> None:
        """Take the statistics of frozen features."""
        even = self.cells.standardised or self.question.even_summary is not None
        for batch in batches if even else ():
            if batch.image_states is not None:
                self.cells.look(batch.image_states)
            if batch.text_states is not None:
                self.question.look(batch.text_states)
        self.cells.settle()
        self.question.settle()

    def _see(self, batch: Batch) -> tuple[Float[Tensor, "i n d"], Bool[Tensor, "b n"], Int[Tensor, " b"] | None]:
        """Return the cells of each picture once, which of them each question may see, and which picture is whose.

        Each picture is encoded once where its questions stand in a row; the last is None where none has several.
        """
        rows = len(batch)
        if batch.image is None and batch.image_states is None and not self.training:
            like = self.cells.cells.weight
            return like.new_zeros(rows, 1, self.cells.dim), like.new_zeros(rows, 1, dtype=torch.bool), None
        places = None if batch.pair_id is None else _once(batch.pair_id)
        own = batch if places is None else batch.part(places[0])
        states = self.image_tower(own.need("image")) if own.image_states is None else own.image_states
        cells, mask = self.cells(states)
        if self.encoder is not None:
            cells = self.encoder(cells, mask)
        picture = places[1] if places is not None and len(own) < rows else None
        mask = mask if picture is None else mask[picture]
        if self.training and self.blind > 0:
            mask = mask & (torch.rand(rows, 1, device=mask.device) >= self.blind)
        return cells, mask, picture


def _once(pictures: Int[Tensor, " b"]) -> tuple[Int[Tensor, " i"], Int[Tensor, " b"]]:
    """Return the first row of each run of rows that show one picture, and each row's place among the runs."""
    _, place, counts = torch.unique_consecutive(pictures, return_inverse=True, return_counts=True)
    return counts.cumsum(0) - counts, place


def build(config: Config, spec: DataSpec) -> AttentionVQA:
    """Build the towers the config names."""
    return AttentionVQA(build_image(config, spec), build_text(config, spec), config, spec)
