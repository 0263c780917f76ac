"""MVAE: pictures and words as two witnesses of one hidden cause, each a Gaussian, multiplied where both are there.

An image tower and a text tower each name a Gaussian over the latent; with the prior they are multiplied (a product of
experts), so that either may be missing. The loss is the mean of negative evidence bounds over the subsets of the
modalities: both, the picture alone, the text alone. A picture and a text are compared by the means of what each says
alone.

Reference:
    Wu & Goodman 2018, arXiv 1802.05335. They let a lone expert rebuild its own modality only (`rebuild="own"`), which
    ties pictures and texts loosely; by default it rebuilds both here, as in the mixture of Shi et al. 2019, arXiv
    1911.03393 (still a bound on the evidence of both). Rebuilt pixels count by their mean squared error times
    `image_weight`, not by a likelihood of each, which would drown the words; words are a bag, rebuilt by a linear map.
    Errors are counted a word, so that the bound itself would have a `kl_weight` of one over the words of a text; it is
    far smaller by default, and rises from 0 over `kl_steps`: under a larger one the experts say too little.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Loss, Model, PairEncoder
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.offers import Reads, Towered
from diptych.encoders.towers import TowerConfig, build_image, build_text
from diptych.nn.latent import Unfold
from diptych.nn.patches import patchify
from diptych.objectives.elbo import Gaussian, draw, kl_to_prior, product_of_experts
from diptych.objectives.rebuild import per_word, pixel_error, word_error

SPREAD = 7.0
"""Log variances stay within this of 0, so that no expert is ever quite sure or knows nothing at all."""

SURE = -4.0
"""Log variance to begin with."""

APART = 2.0
"""Deviation of the means to begin with."""


class Config(TowerConfig):
    """What an MVAE is made of; towers are inherited. A picture is painted in patches of `image_patch` pixels."""

    image_pool: str = Field(default="mean", description="vit: mean or class; pretrained: class, mean or pooler")
    text_pool: str = Field(default="mean", description="transformer: mean or last; pretrained: also class, max")
    dim: int = Field(default=64, gt=0, description="width of the latent")
    decoder_dim: int = Field(default=64, gt=0, description="width of the decoders")
    decoder_layers: int = Field(default=2, ge=0, description="blocks of each decoder")
    decoder_heads: int = Field(default=4, gt=0, description="attention heads of the decoders")
    image_weight: float = Field(default=3.0, ge=0, description="of the mean squared error of rebuilt pixels")
    word_weight: float = Field(default=1.0, ge=0, description="of the cross-entropy of rebuilt words")
    kl_weight: float = Field(default=0.002, ge=0, description="of the distance from the prior, beside nats a word")
    kl_steps: int = Field(default=500, ge=0, description="steps over which that weight rises from 0")
    rebuild: Literal["own", "both"] = Field(default="both", description="what a modality rebuilds when it is alone")


class MVAE(Model, PairEncoder, Towered, AfterStep):
    """Two towers that each name a Gaussian, a decoder for each modality, and a count of steps for the KL's rise."""

    steps: Tensor

    def __init__(self, image: ImageEncoder, text: TextEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__()
        self.image_tower, self.text_tower, self.config = image, text, config
        self.patch = config.image_patch
        self.read_image = _expert(image.dim, config.dim)
        self.read_text = _expert(text.dim, config.dim)
        sizes = {"width": config.decoder_dim, "layers": config.decoder_layers, "heads": config.decoder_heads}
        places, numbers = (spec.image_size // self.patch) ** 2, spec.channels * self.patch**2
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.paint = Unfold(config.dim, numbers, places=places, **sizes)
        self.say = nn.Linear(config.dim, spec.vocabulary)

    def reads(self) -> Reads:
        """Say that summaries are enough."""
        return Reads()

    def expert_image(self, batch: Batch) -> Gaussian:
        """Return what pictures say of the latent."""
        states = batch.image_states
        if states is None:
            states = self.image_tower(batch.need("image"))
        return _gaussian(self.read_image(states.summary))

    def expert_text(self, batch: Batch) -> Gaussian:
        """Return what texts say of the latent."""
        states = batch.text_states
        if states is None:
            states = self.text_tower(batch.need("tokens"), batch.need("token_mask"))
        return _gaussian(self.read_text(states.summary))

    def encode_image(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors: where the posterior of pictures alone has its mean."""
        return F.normalize(product_of_experts([self.expert_image(batch)])[0], dim=1)

    def encode_text(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors: where the posterior of texts alone has its mean."""
        return F.normalize(product_of_experts([self.expert_text(batch)])[0], dim=1)

    def scale(self) -> Float[Tensor, ""]:
        """Return a usual inverse temperature; none is learnt."""
        return torch.tensor(1 / 0.07, device=next(self.parameters()).device)

    def kl_weight(self) -> float:
        """Return the weight of the distance from the prior at this step."""
        config = self.config
        return config.kl_weight * (min(1.0, int(self.steps) / config.kl_steps) if config.kl_steps > 0 else 1.0)

    def patches(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b p e"]:
        """Cut pictures into patches of the pixels that the tower normalises."""
        return patchify(self.image_tower.normalise(image), self.patch)

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the mean over subsets of modalities of their weighted negative bounds.

        Its parts are the weighted terms: squared pixels, nats a word, and the KL in nats.
        """
        image, text = self.expert_image(batch), self.expert_text(batch)
        everything = self.config.rebuild == "both"
        subsets = (([image, text], True, True), ([image], True, everything), ([text], everything, True))
        found = [self.bound(experts, batch, pixels=pixels, words=words) for experts, pixels, words in subsets]
        parts = {name: torch.stack([terms[name] for terms in found if name in terms]).sum() / 3 for name in found[0]}
        return Loss(torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()})

    def bound(
        self, experts: list[Gaussian], batch: Batch, *, pixels: bool, words: bool
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the terms of a negative evidence bound, with their weights.

        The latent is drawn in training, and the mean of the posterior in evaluation.

        Args:
            experts: of the modalities that are there.
            batch: what is rebuilt.
            pixels: whether the picture is.
            words: whether the text is.
        """
        posterior = product_of_experts(experts)
        latent = draw(posterior, torch.randn_like(posterior[0])) if self.training else posterior[0]
        terms = {"kl": self.kl_weight() * kl_to_prior(posterior).mean()}
        if pixels:
            terms["pixels"] = (
                self.config.image_weight * pixel_error(self.paint(latent), self.patches(batch.need("image"))).mean()
            )
        if words:
            tokens, mask = batch.need("tokens"), batch.need("token_mask")
            errors = word_error(self.say(latent), tokens, mask)
            terms["words"] = self.config.word_weight * per_word(errors, mask)
        return terms

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step."""
        self.steps += 1


@torch.no_grad()
def _expert(width: int, dim: int) -> nn.Sequential:
    """Make the map to means and log variances; it begins far apart and sure, or noise would drown what it says."""
    last = nn.Linear(width, 2 * dim)
    nn.init.normal_(last.weight[:dim], std=APART * width**-0.5)
    nn.init.constant_(last.bias[dim:], SURE)
    return nn.Sequential(nn.LayerNorm(width), last)


def _gaussian(numbers: Float[Tensor, "b e"]) -> Gaussian:
    """Read means and log variances."""
    mean, log = numbers.to(torch.promote_types(numbers.dtype, torch.float32)).chunk(2, dim=1)
    return mean, SPREAD * torch.tanh(log / SPREAD)


def build(config: Config, spec: DataSpec) -> MVAE:
    """Build the towers the config names and the decoders.

    Raises:
        UserError: for towers that are frozen, or when the patch does not divide the picture.
    """
    image, text = build_image(config, spec), build_text(config, spec)
    if image.frozen or text.frozen:
        raise UserError(
            "mvae rebuilds pixels and words, so its towers cannot be frozen: leave image_encoder and text_encoder out, "
            "or set image_train=all and text_train=all"
        )
    if spec.image_size % config.image_patch != 0:
        raise UserError(f"image_patch={config.image_patch} does not divide image_size={spec.image_size}")
    return MVAE(image, text, config, spec)
