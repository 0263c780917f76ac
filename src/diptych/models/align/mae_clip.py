"""MAE-CLIP: one image encoder that paints hidden patches, finds its words and, where labels are given, names classes.

The loss is a weighted sum: reconstruction (a masked pass, decoded from patch tokens, with `condition` also from the
words), alignment of the pooled image with the text (a second, unmasked pass, or with `align_from="visible"` the same
masked one, which spares it), and classification of the aligned vector, where rows have a label. The log has each term,
and with `gradient_norms` how hard each pulls at the shared encoder.

Reference:
    Gong et al. 2022, arXiv 2210.07839 (CAV-MAE, reconstruction with contrast); Mu et al. 2021, arXiv 2112.12750 (SLIP,
    contrast with self-supervision); Li et al. 2022, arXiv 2212.00794 (FLIP, contrast on visible patches); He et al.
    2021, arXiv 2111.06377 (MAE). None is followed to the letter: one picture encoder is shared, texts have their own,
    and both directions are contrasted. `align="distillation"` softens the targets by what a moving average believes
    (Li et al. 2021, arXiv 2107.07651, ALBEF), which sees the whole picture also where the encoder sees a quarter.
    `align="adversarial"` adds a judge that must not tell pictures from texts (after Wang et al. 2017, ACMR): it never
    stands alone, since it would match distributions and swap classes. Geng et al. 2022, arXiv 2205.14204 (M3AE) hide
    words too and encode them with the patches; here they are shown to the decoder alone, and the loss is of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Coupled, Loss
from diptych.encoders.base import TextEncoder
from diptych.encoders.dual import DualEncoder
from diptych.encoders.masked import MaskedViT, PixelDecoder, masked_vit, patch_noise, patches_kept, reconstruct
from diptych.encoders.towers import build_text
from diptych.models.slow import Slow, SlowConfig
from diptych.nn.head import Head
from diptych.objectives.adversarial import reverse_gradient, tell_apart
from diptych.objectives.classes import name_classes
from diptych.objectives.contrastive import contrastive
from diptych.objectives.masked_pixels import masked_pixels


class Config(SlowConfig):
    """What it is made of; the sizes of the image encoder are the inherited ones of a "vit"."""

    mask: float = Field(default=0.75, gt=0, lt=1, description="share of the patches that is hidden")
    decoder_dim: int = Field(default=64, gt=0, description="width of the decoder")
    decoder_layers: int = Field(default=2, ge=1, description="blocks of the decoder")
    decoder_heads: int = Field(default=4, gt=0, description="attention heads of the decoder")
    normalise_patches: bool = Field(default=True, description="targets of mean 0 and variance 1 in each patch")
    reconstruct_weight: float = Field(default=1.0, ge=0, description="of painting hidden patches")
    align_weight: float = Field(default=1.0, ge=0, description="of bringing pictures and texts together")
    class_weight: float = Field(default=1.0, ge=0, description="of naming the class, where the data has classes")
    align: Literal["contrastive", "distillation", "adversarial"] = Field(
        default="contrastive", description="contrast alone, with targets of a slow average, or with a judge of sides"
    )
    align_from: Literal["all", "visible"] = Field(default="all", description="patches that the aligned image reads")
    condition: bool = Field(default=False, description="let the decoder read the words too")
    reversal: float = Field(default=0.1, ge=0, description="adversarial: strength of the reversed gradient")
    gradient_norms: bool = Field(default=False, description="log each term's pull at the encoder; costs time")


class MAECLIP(DualEncoder, Coupled, AfterStep):
    """An image encoder shared by a pixel decoder and a joint space with texts."""

    image_tower: MaskedViT

    def __init__(self, image: MaskedViT, text: TextEncoder, config: Config, *, classes: int = 0) -> None:
        super().__init__(image, text, config)
        self.config = config
        self.slow = Slow(self, config) if config.align == "distillation" else None
        self.decoder = PixelDecoder(
            image,
            dim=config.decoder_dim,
            layers=config.decoder_layers,
            heads=config.decoder_heads,
            words=text.token_dim if config.condition else None,
        )
        self.keep = patches_kept(image.side**2, config.mask)
        self.judge = Head(config.dim, 1, kind="mlp") if config.align == "adversarial" else None
        self.classify = nn.Linear(config.dim, classes) if classes > 0 else None

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b _"], ...]:
        """Return aligned vectors of pictures and texts, and the hidden patches: as predicted, and as they are.

        With distillation the vectors of the slow average follow.
        """
        image = batch.need("image")
        noise = patch_noise(len(image), self.image_tower.side**2, training=self.training, device=image.device)
        told = self.told(batch)
        words = told.text_states if self.config.condition else None
        made = reconstruct(self.image_tower, self.decoder, image, noise, keep=self.keep, text=words)
        if self.config.align_from == "visible":
            vectors = F.normalize(self.read_image(self.image_tower.states(made.read)), dim=1)
        else:
            vectors = self.encode_image(batch)
        predicted, patches = (side[made.hidden].view(len(image), -1) for side in (made.predicted, made.patches))
        slow = () if self.slow is None else self.slow.embed(batch)
        return vectors, self.encode_text(told), predicted, patches, *slow

    def told(self, batch: Batch) -> Batch:
        """Return the batch with what the text tower makes of it, which both the joint space and the decoder read.

        Raises:
            UserError: when the decoder shall read words of which only the summary is kept.
        """
        if batch.text_states is None:
            tokens, mask = batch.need("tokens"), batch.need("token_mask")
            return replace(batch, text_states=self.text_tower(tokens, mask))
        if self.config.condition and batch.text_states.tokens.shape[1] == 0:
            raise UserError(
                "condition=true reads every word, but only summaries are kept of the frozen text tower: give "
                "cache=false, or text_read=cells"
            )
        return batch

    def alignment(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], slow: Sequence[Tensor], batch: Batch
    ) -> Float[Tensor, ""]:
        """Return the contrastive loss in nats, its targets softened where there is a slow average."""
        if self.slow is None:
            return contrastive(image, text, self.scale(), group=batch.pair_id)
        slow_image, slow_text = slow
        return self.slow.contrast(image, text, (slow_image, slow_text), self.scale(), batch)

    def terms(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Return the terms by name, each with its weight."""
        image, text, *painted = embeddings
        predicted, patches = (side.view(len(side), self.image_tower.side**2 - self.keep, -1) for side in painted[:2])
        everywhere = torch.ones(predicted.shape[:2], dtype=torch.bool, device=predicted.device)
        painting = masked_pixels(predicted, patches, everywhere, normalise=self.config.normalise_patches)
        found = {
            "reconstruction": self.config.reconstruct_weight * painting,
            "alignment": self.config.align_weight * self.alignment(image, text, painted[2:], batch),
        }
        if self.judge is not None:
            both = reverse_gradient(torch.cat([image, text]), strength=self.config.reversal)
            pictures = torch.arange(len(both), device=both.device) < len(image)
            told = tell_apart(self.judge(both)[:, 0].float(), pictures)
            found["judge"] = self.config.align_weight * told
        if self.classify is not None:
            classified = name_classes(self.classify(image), batch.need("label"))
            found["classification"] = self.config.class_weight * classified
        return found

    def couple(self, embeddings: tuple[Float[Tensor, "b _"], ...], batch: Batch) -> Loss:
        """Compare the whole batch."""
        return self._summed(self.terms(embeddings, batch))

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the weighted sum; its parts have the weights in them."""
        terms = self.terms(self.embed(batch), batch)
        loss = self._summed(terms)
        if self.config.gradient_norms and torch.is_grad_enabled():
            loss.parts.update({f"{name}_pull": self._pull(term) for name, term in terms.items()})
        return loss

    def _summed(self, terms: dict[str, Float[Tensor, ""]]) -> Loss:
        """Add the terms; the log has each, the scale and the share of soft targets."""
        total = torch.stack(list(terms.values())).sum()
        parts = {name: term.detach() for name, term in terms.items()} | {"scale": self.scale().detach()}
        if self.slow is not None:
            parts["alpha"] = total.new_tensor(self.slow.alpha())
        return Loss(total, parts)

    def _pull(self, term: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the norm of a term's gradient on the shared encoder."""
        slopes = torch.autograd.grad(term, list(self.image_tower.parameters()), retain_graph=True, allow_unused=True)
        norm: Tensor = torch.stack([slope.norm() for slope in slopes if slope is not None]).norm()
        return norm

    def after_step(self) -> None:
        """Keep the scale within its bound, and move the slow average."""
        self.bound_scale()
        if self.slow is not None:
            self.slow.follow(self)


def build(config: Config, spec: DataSpec) -> MAECLIP:
    """Build the towers and the decoder; with classes in the spec, a classifier too.

    Raises:
        UserError: for an image tower whose patches cannot be left out, or when nothing would be hidden.
    """
    return MAECLIP(masked_vit(config, spec), build_text(config, spec), config, classes=len(spec.classes))
