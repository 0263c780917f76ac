"""Multimodal skip-gram: word vectors learnt from the words around and from what a frozen image tower saw of the word.

The picture of a word is the mean summary of the pictures whose captions hold it, less the mean of all. Variant A draws
the word's vector itself to that of its picture; variant B draws a linear map of it, which stays useful for words that
were never seen: it imagines them.

Reference:
    Lazaridou, Pham and Baroni 2015, arXiv 1501.02598. For A, visual vectors are cut to the width of the words by an
    SVD. The paper takes pictures of objects from ImageNet; here they are those of the captions, so that the pictures
    of all words look alike until their common mean is taken off. The noise words that neighbours are told from serve
    the pictures, too.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Imaginer, Loss
from diptych.encoders.base import ImageEncoder
from diptych.encoders.offers import Reads, Sighted
from diptych.encoders.towers import build_image
from diptych.models.embedding import PicturedConfig, SkipgramModel
from diptych.objectives.skipgram import full, picture_hinge


class Config(PicturedConfig):
    """What a multimodal skip-gram model is made of; the image tower's fields are inherited."""

    variant: Literal["A", "B"] = Field(default="B", description="A: words in the space of pictures; B: mapped there")
    margin: float = Field(default=0.5, ge=0, description="by how much the own picture must win a hinge, in cosine")
    wrong: float = Field(default=20.0, gt=0, description="pictures of other words that each word is told from")
    picture_weight: float = Field(default=1.0, ge=0, description="of the pictures beside the neighbours")
    penalty: float = Field(default=1e-4, ge=0, description="B: on the squares of the map")


class MultimodalSkipgram(SkipgramModel, Imaginer, Sighted):
    """Two tables of vectors, the words' pictures and, in variant B, a map from the ones to the others."""

    pictures: Tensor
    pictured: Tensor
    withheld: Tensor
    common: Tensor
    basis: Tensor | None

    def __init__(self, image: ImageEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.image_tower, self.config = image, config
        self.map, width = None, image.dim
        if config.variant == "A":
            if config.dim > image.dim:
                raise UserError(f"variant A needs word vectors no wider than the image tower: dim <= {image.dim}")
            width = config.dim
            self.register_buffer("basis", torch.zeros(image.dim, width))
        else:
            self.basis = None
            self.map = nn.Linear(config.dim, width, bias=False)
        self.register_buffer("common", torch.zeros(image.dim))
        self.register_buffer("pictures", torch.zeros(spec.vocabulary, width))
        self.register_buffer("pictured", torch.zeros(spec.vocabulary, dtype=torch.bool))
        self.register_buffer("withheld", torch.zeros(spec.vocabulary, dtype=torch.bool))

    def reads(self) -> Reads:
        """Say what is read of the tower's outputs: the summary."""
        return Reads()

    @torch.no_grad()
    def show(self, vectors: Float[Tensor, "v m"], pictured: Bool[Tensor, " v"], withheld: Bool[Tensor, " v"]) -> None:
        """Take the words' pictures; what they have in common, and for A the axes, are those of the words to learn."""
        known = vectors[pictured].double()
        self.common.copy_(known.mean(0))
        if self.basis is not None:
            spread = known - known.mean(0)
            axes = torch.linalg.eigh(spread.T @ spread).eigenvectors.flip(1)
            self.basis.copy_(axes[:, : self.basis.shape[1]])
        here = vectors.to(self.common)
        self.pictures.copy_(self.see(here) * (pictured | withheld).to(here)[:, None])
        self.pictured.copy_(pictured)
        self.withheld.copy_(withheld)

    def shown(self) -> tuple[Float[Tensor, "v m"], Bool[Tensor, " v"], Bool[Tensor, " v"]]:
        """Return the words' pictures, and which are to learn from and which are withheld."""
        return self.pictures, self.pictured, self.withheld

    def imagine(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n m"]:
        """Return what words would look like."""
        vectors = self.centre(tokens)
        return F.normalize(vectors if self.map is None else self.map(vectors), dim=1)

    def see(self, summary: Float[Tensor, "b w"]) -> Float[Tensor, "b m"]:
        """Return pictures as they are compared: without what is common to all and, for A, on the axes kept."""
        own = summary.to(self.common) - self.common
        return F.normalize(own if self.basis is None else own @ self.basis, dim=1)

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the mean over sentences of nats and hinges; `pair` and `picture` are means over neighbours."""
        words, pairs, centre = self.neighbours(batch)
        seen = self._hinges(batch, centre)
        total = (words + self.config.picture_weight * seen).mean()
        if self.map is not None:
            total = total + self.config.penalty * self.map.weight.float().square().sum()
        each = pairs.clamp(min=1e-9)
        return Loss(total, {"pair": words.detach().sum() / each, "picture": seen.detach().sum() / each})

    def _hinges(self, batch: Batch, centre: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
        """Tell each word's picture from those of noise words.

        With z = M u, the cosine of z with a picture v is u . (M' v) / |z|, and |z|^2 is u . (M'M) u: nothing as wide
        as a picture is made for each word of a sentence.
        """
        tokens, negatives = batch.need("tokens"), batch.need("negatives")
        if self.map is None:
            pictures, long = self.pictures, centre.square().sum(2)
        else:
            pictures = self.pictures @ self.map.weight
            long = (centre @ (self.map.weight.T @ self.map.weight) * centre).sum(2)
        unit = full(centre) * full(long).clamp(min=1e-24).rsqrt()[:, :, None]
        right = (unit * F.embedding(tokens, pictures)).sum(2)
        wrong = unit @ F.embedding(negatives, full(pictures)).transpose(1, 2)
        own = self.pictured[tokens] & batch.need("token_mask")
        allowed = own[:, :, None] & self.pictured[negatives][:, None] & (tokens[:, :, None] != negatives[:, None])
        return picture_hinge(right, wrong, allowed, margin=self.config.margin, count=self.config.wrong)


def build(config: Config, spec: DataSpec) -> MultimodalSkipgram:
    """Build the frozen image tower and the tables.

    Raises:
        UserError: when the tower is to be trained, which the words' pictures could not follow.
    """
    image = build_image(config, spec)
    if not image.frozen:
        raise UserError(f"multimodal_skipgram looks with a frozen image tower: image_train={config.image_train!r}")
    return MultimodalSkipgram(image, config, spec)
