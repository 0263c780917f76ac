"""One transformer for pictures, for words and for both at once: each modality has only its first layer to itself."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders.base import CLIP_MEAN, CLIP_STD
from diptych.encoders.towers import TowerConfig
from diptych.nn.patches import patchify
from diptych.nn.pool import masked_mean
from diptych.nn.transformer import Transformer

Part = tuple[Float[Tensor, "b _ d"], Bool[Tensor, "b _"]]
"""Tokens of one modality, as a stem makes them, and which are real."""


class SharedEncoder(nn.Module):
    """Stems for patches and words, then blocks whose weights serve both, and the mean of what comes out.

    Args:
        image_size: side of a picture, in pixels.
        patch: side of a patch, in pixels.
        channels: of a picture.
        vocabulary: how many token ids there are.
        context: the most tokens of a text.
        dim: width of a token.
        layers: blocks.
        heads: attention heads.
        activation: as in `nn.transformer`.
        dropout: chance in [0, 1).

    Raises:
        UserError: when the patch does not divide the picture.

    Reference:
        Bao et al. 2021, arXiv 2111.02358 (VLMo): modality embeddings and shared attention; here the MLPs are shared
        too. A modality that is left out is not there for the attention, so that nothing of its stem gets a gradient.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        patch: int,
        channels: int,
        vocabulary: int,
        context: int,
        dim: int,
        layers: int,
        heads: int,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size % patch != 0:
            raise UserError(f"patch={patch} does not divide image_size={image_size}: choose a divisor")
        self.dim, self.patch, self.context = dim, patch, context
        self.picture = (channels, image_size, image_size)
        self.places, self.numbers = (image_size // patch) ** 2, channels * patch**2
        self.register_buffer("shift", torch.tensor(CLIP_MEAN[:channels]).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(CLIP_STD[:channels]).view(-1, 1, 1), persistent=False)
        self.patch_stem = nn.Linear(self.numbers, dim)
        self.word_stem = nn.Embedding(vocabulary, dim)
        self.patch_positions = nn.Parameter(dim**-0.5 * torch.randn(self.places, dim))
        self.word_positions = nn.Parameter(0.01 * torch.randn(context, dim))
        self.modality = nn.Parameter(0.02 * torch.randn(2, dim))
        self.norm_before = nn.LayerNorm(dim)
        self.transformer = Transformer(dim, heads, layers, activation=activation, dropout=dropout)
        self.norm_after = nn.LayerNorm(dim)
        nn.init.normal_(self.word_stem.weight, std=0.02)

    def patches(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b p e"]:
        """Cut pictures, uint8 in [0, 255] or float in [0, 1], into patches of normalised pixels.

        Raises:
            UserError: when the picture's size or number of channels is another.
        """
        if image.shape[1:] != self.picture:
            wanted, given = (" x ".join(map(str, shape)) for shape in (self.picture, image.shape[1:]))
            raise UserError(f"this encoder takes {wanted} pictures, got {given}: decode them at image_size")
        if image.dtype == torch.uint8:
            image = image.to(self.scale.dtype) / 255
        return patchify((image - self.shift) / self.scale, self.patch)

    def of_patches(self, patches: Float[Tensor, "b p e"]) -> Part:
        """Make tokens of patches."""
        tokens = self.patch_stem(patches) + self.patch_positions + self.modality[0]
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def of_words(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Part:
        """Make tokens of words.

        Raises:
            UserError: when there are more than fit.
        """
        if tokens.shape[1] > self.context:
            raise UserError(f"this encoder reads {self.context} tokens, got {tokens.shape[1]}: tokenize with that")
        return self.word_stem(tokens) + self.word_positions[: tokens.shape[1]] + self.modality[1], mask

    def of_chances(self, chances: Float[Tensor, "b v"]) -> Part:
        """Make one token of words that are not decided: the mean of all, weighted by their chances in [0, 1]."""
        token = (chances @ self.word_stem.weight + self.modality[1])[:, None]
        return token, torch.ones(token.shape[:2], dtype=torch.bool, device=token.device)

    def forward(self, *parts: Part) -> Float[Tensor, "b d"]:
        """Read one modality or several as one sequence; return the mean token."""
        tokens, mask = (torch.cat(sides, dim=1) for sides in zip(*parts, strict=True))
        plain = len(parts) == 1 and not torch.compiler.is_compiling() and bool(mask.all())  # no branch in a graph
        seen = None if plain else mask
        return masked_mean(self.norm_after(self.transformer(self.norm_before(tokens), seen)), mask)


def shared_encoder(config: TowerConfig, spec: DataSpec) -> SharedEncoder:
    """Build it with the sizes of the config's "vit".

    Raises:
        UserError: for other towers, whose weights cannot be shared, or for ones that are not trained.
    """
    chosen = (config.image_encoder, config.text_encoder, config.image_train, config.text_train)
    if chosen[:2] != ("vit", "transformer") or not {*chosen[2:]} <= {"auto", "all"}:
        raise UserError(
            f"a shared encoder is one transformer of its own, got image_encoder={chosen[0]!r}, "
            f"text_encoder={chosen[1]!r}, image_train={chosen[2]!r} and text_train={chosen[3]!r}: leave these out"
        )
    return SharedEncoder(
        image_size=spec.image_size,
        patch=config.image_patch,
        channels=spec.channels,
        vocabulary=spec.vocabulary,
        context=spec.context,
        dim=config.image_dim,
        layers=config.image_layers,
        heads=config.image_heads,
        activation=config.tower_activation,
        dropout=config.tower_dropout,
    )
