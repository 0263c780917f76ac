"""Shared encoder: one transformer reads pictures and words with the same weights, so that both come out in one space.

Only the first layer and an embedding belong to a modality. `objective` says what makes the space: "contrast" (the
encoder alone), or decoders that rebuild pictures and words from it: "autoencode" (from both inputs or one of them,
always both), "correlate" (from each, and the two vectors pulled together) or "translate" (from each, and from its
translation into the other modality: there and back). `contrast_weight` adds contrast to any of the last three.

Reference:
    Ngiam et al. 2011, ICML (autoencode); Feng et al. 2014, ACM MM (correlate: Corr-AE, Corr-Cross-AE and Corr-Full-AE
    are `rebuild` own, other and both); Pham et al. 2018, arXiv 1812.07809 (translate: MCTN, which has `rebuild=other`);
    Bao et al. 2021, arXiv 2111.02358 (VLMo, shared weights). None is followed to the letter: the first three have an
    encoder for each modality. Vectors have unit length, so that pulling them together cannot shrink them. An input that
    is missing is left out of the attention, not set to zero; Ngiam's thirds of the data are three readings of each
    pair. Pixels are rebuilt as they are (normalised patches would hide the colour of flat ones); words as a bag, by a
    linear map, since captions that say the same in another order or words should come out near each other. What is
    translated back is the mean of the words' embeddings by their chances, through which gradients pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import AfterStep, Coupled, Loss, Model, PairEncoder
from diptych.encoders.shared import Part, SharedEncoder, shared_encoder
from diptych.encoders.towers import TowerConfig
from diptych.nn.latent import Unfold
from diptych.objectives.contrastive import contrastive
from diptych.objectives.rebuild import per_word, pixel_error, there_and_back, word_error


class Config(TowerConfig):
    """What a shared encoder is made of; its sizes are the inherited ones of a "vit"."""

    dim: int = Field(default=128, gt=0, description="width of the joint space")
    objective: Literal["contrast", "autoencode", "correlate", "translate"] = Field(
        default="contrast", description="what makes the space; see the system's description"
    )
    decoder_dim: int = Field(default=64, gt=0, description="width of the decoders")
    decoder_layers: int = Field(default=2, ge=0, description="blocks of each decoder")
    decoder_heads: int = Field(default=4, gt=0, description="attention heads of the decoders")
    image_weight: float = Field(default=1.0, ge=0, description="of the mean squared error of rebuilt pixels")
    word_weight: float = Field(default=1.0, ge=0, description="of the cross-entropy of rebuilt words")
    left_out: float = Field(default=2 / 3, ge=0, le=1, description="autoencode: weight of reading one input alone")
    rebuild: Literal["own", "other", "both"] = Field(
        default="both", description="correlate and translate: what each vector rebuilds"
    )
    pull: float = Field(default=1.0, ge=0, description="correlate: weight of the squared distance of a pair's vectors")
    cycle_weight: float = Field(default=1.0, ge=0, description="translate: of translating back")
    contrast_weight: float = Field(default=0.0, ge=0, description="of contrast beside another objective")
    scale: float = Field(default=1 / 0.07, gt=0, description="inverse temperature to begin with")
    scale_max: float = Field(default=100.0, gt=0, description="the learned scale never passes this")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch should be rebuilt as."""

    patches: Float[Tensor, "b p e"]
    mask: Bool[Tensor, "b t"]
    tokens: Int[Tensor, "b t"]

    def pixels(self, painted: Float[Tensor, "b p e"]) -> Float[Tensor, " b"]:
        """Return the mean squared error of each picture."""
        return pixel_error(painted, self.patches)

    def words(self, said: Float[Tensor, "b v"]) -> Float[Tensor, " b"]:
        """Return the cross-entropy of each text."""
        return word_error(said, self.tokens, self.mask)

    def errors(self, painted: Float[Tensor, "b p e"], said: Float[Tensor, "b v"]) -> Float[Tensor, "b 2"]:
        """Return both, side by side."""
        return torch.stack([self.pixels(painted), self.words(said)], dim=1)


class Shared(Model, PairEncoder, Coupled, AfterStep):
    """An encoder, a map into the joint space, and where something is rebuilt a decoder for each modality."""

    def __init__(self, encoder: SharedEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.enter = nn.Linear(encoder.dim, config.dim, bias=False)
        sizes = {"width": config.decoder_dim, "layers": config.decoder_layers, "heads": config.decoder_heads}
        rebuilds = config.objective != "contrast"
        self.paint = Unfold(config.dim, encoder.numbers, places=encoder.places, **sizes) if rebuilds else None
        self.say = nn.Linear(config.dim, spec.vocabulary) if rebuilds else None
        self.contrast_weight = config.contrast_weight if rebuilds else 1.0
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=self.contrast_weight > 0)

    def picture(self, batch: Batch) -> Part:
        """Return the tokens of pictures."""
        return self.encoder.of_patches(self.encoder.patches(batch.need("image")))

    def words(self, batch: Batch) -> Part:
        """Return the tokens of texts."""
        return self.encoder.of_words(batch.need("tokens"), batch.need("token_mask"))

    def read(self, *parts: Part) -> Float[Tensor, "b e"]:
        """Return the unit vector of one modality, or of both read together."""
        vector: Tensor = self.enter(self.encoder(*parts))
        return F.normalize(vector.to(torch.promote_types(vector.dtype, torch.float32)), dim=1)

    def encode_image(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors of pictures."""
        return self.read(self.picture(batch))

    def encode_text(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors of texts."""
        return self.read(self.words(batch))

    def scale(self) -> Float[Tensor, ""]:
        """Return the learned scale."""
        return self.log_scale.exp()

    def painted(self, vector: Float[Tensor, "b d"]) -> Float[Tensor, "b p e"]:
        """Paint the patches of a picture from a vector of unit length."""
        assert self.paint is not None
        made: Tensor = self.paint(vector * vector.shape[1] ** 0.5)
        return made

    def said(self, vector: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """Return the logits of the words that a vector of unit length tells of."""
        assert self.say is not None
        made: Tensor = self.say(vector * vector.shape[1] ** 0.5)
        return made

    def hear(self, said: Float[Tensor, "b v"]) -> Float[Tensor, "b d"]:
        """Read words that are not decided: one token, the mean of all by their chances."""
        return self.read(self.encoder.of_chances(said.softmax(1)))

    def see(self, painted: Float[Tensor, "b p e"]) -> Float[Tensor, "b d"]:
        """Read a picture that was painted."""
        return self.read(self.encoder.of_patches(painted))

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b _"], ...]:
        """Return vectors of pictures and texts, and the errors of rebuilt pixels and words of each pair."""
        picture, words = self.picture(batch), self.words(batch)
        image, text = self.read(picture), self.read(words)
        wanted = Wanted(self.encoder.patches(batch.need("image")), words[1], batch.need("tokens"))
        config = self.config
        if config.objective == "contrast":
            return image, text
        if config.objective == "autoencode":
            alone = config.left_out / 2
            readings = ((1 - config.left_out, self.read(picture, words)), (alone, image), (alone, text))
            found = [weight * wanted.errors(self.painted(one), self.said(one)) for weight, one in readings]
        else:
            own, other = (image, text), (text, image)
            sources = {"own": [own], "other": [other], "both": [own, other]}[config.rebuild]
            found = [wanted.errors(self.painted(one), self.said(two)) for one, two in sources]
        if config.objective == "translate":
            pixels = there_and_back(image, self.said, lambda said: self.painted(self.hear(said)), wanted.pixels)
            wording = there_and_back(text, self.painted, lambda painted: self.said(self.see(painted)), wanted.words)
            found.append(config.cycle_weight * torch.stack([pixels, wording], dim=1))
        return image, text, torch.stack(found).sum(0)

    def couple(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> Loss:
        """Compare the whole batch, and average what was rebuilt."""
        image, text, *rebuilt = embeddings
        terms = {}
        if rebuilt:
            pixels, words = rebuilt[0].unbind(1)
            terms["pixels"] = self.config.image_weight * pixels.mean()
            terms["words"] = self.config.word_weight * per_word(words, batch.need("token_mask"))
        if self.config.objective == "correlate":
            terms["pull"] = self.config.pull * (image - text).square().sum(1).mean()
        if self.contrast_weight > 0:
            terms["contrast"] = self.contrast_weight * contrastive(image, text, self.scale(), group=batch.pair_id)
        parts = {name: term.detach() for name, term in terms.items()}
        return Loss(torch.stack(list(terms.values())).sum(), parts | {"scale": self.scale().detach()})

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the weighted sum: squared pixels, nats a word, nats."""
        return self.couple(self.embed(batch), batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale within its bound."""
        self.log_scale.clamp_(max=math.log(self.config.scale_max))


def build(config: Config, spec: DataSpec) -> Shared:
    """Build the encoder for the data the spec describes, and what the objective needs beside it.

    Raises:
        UserError: for other towers than the built-in ones, which have no weights in common.
    """
    return Shared(shared_encoder(config, spec), config, spec)
