"""Masked autoencoding: a vision transformer that really leaves hidden patches out, and a decoder that paints them.

Reference:
    He et al. 2021, arXiv 2111.06377 (MAE): fixed sine-cosine positions, added before patches are dropped; a class
    token; the encoder never sees a mask token. Blocks are drawn as in CLIP (`nn/transformer.py`), and LayerNorm adds
    1e-5 to variances, where the released code has 1e-6. The number of patches kept is rounded, and at least one; the
    released code rounds down, by which 10 patches at 0.9 leave none. Geng et al. 2022, arXiv 2205.14204 (M3AE): words
    beside the patches; here they enter the decoder alone, and are not hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.core.batch import DataSpec, States
from diptych.core.errors import UserError, unknown
from diptych.encoders.base import CLIP_MEAN, CLIP_STD, ImageEncoder
from diptych.encoders.towers import ImageTowerConfig, TowerConfig
from diptych.nn.linear import Linear
from diptych.nn.patches import PatchEmbed, patchify, sincos_positions
from diptych.nn.transformer import Transformer

POOLS = ("class", "mean")
GOLDEN = 0.5 * (5**0.5 - 1)


class MaskedViT(ImageEncoder):
    """A vision transformer that can read some of the patches alone; as a tower it reads them all.

    Args:
        image_size: side of a picture, in pixels.
        patch: side of a patch, in pixels.
        dim: width of a token, a multiple of 4.
        layers: blocks.
        heads: attention heads.
        channels: of a picture.
        pool: what the summary is: "class" (the class token) or "mean" (of the patches).
        activation: "gelu" or another of `nn.transformer`.
        dropout: chance in [0, 1).
        mean: of each channel of the pictures, in [0, 1].
        std: of each channel of the pictures.

    Raises:
        UserError: when the patch does not divide the picture, or for another pool.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        image_size: int = 64,
        patch: int = 8,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        channels: int = 3,
        pool: str = "class",
        activation: str = "gelu",
        dropout: float = 0.0,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__(dim, image_size=image_size, mean=mean[:channels], std=std[:channels])
        if image_size % patch != 0:
            raise UserError(f"patch={patch} does not divide image_size={image_size}: choose a divisor")
        if pool not in POOLS:
            raise unknown("image pool", pool, POOLS)
        self.patch, self.side, self.channels = patch, image_size // patch, channels
        self.pool, self.heads, self.activation = pool, heads, activation
        self.patches = PatchEmbed(channels, dim, patch, bias=True)
        self.class_token = nn.Parameter(0.02 * torch.randn(dim))
        positions = sincos_positions(dim, rows=self.side, columns=self.side)
        self.register_buffer("positions", positions, persistent=False)
        self.transformer = Transformer(dim, heads, layers, activation=activation, dropout=dropout)
        self.norm_after = nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.patches.projection.weight.data.flatten(1))

    def recipe(self) -> str:
        """Return the kind, sizes and pixel statistics."""
        sizes = f"{self.image_size} {self.patch} {self.heads} {self.activation} {self.pool}"
        return f"masked vit {sizes} {self.mean} {self.std}"

    def read(self, patches: Float[Tensor, "b p e"], kept: Int[Tensor, "b k"]) -> Float[Tensor, "b n d"]:
        """Encode those patches of normalised pixels that are kept: the class token, then the patches read."""
        chosen = patches.gather(1, kept.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        return self._transform(self.patches.embed(chosen) + self.positions[kept])

    def _transform(self, x: Float[Tensor, "b p d"]) -> Float[Tensor, "b n d"]:
        x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        y: Tensor = self.norm_after(self.transformer(x))
        return y

    def states(self, read: Float[Tensor, "b n d"]) -> States:
        """Tell patches and summary apart in what `read` returns."""
        tokens = read[:, 1:]
        summary = read[:, 0] if self.pool == "class" else tokens.mean(1)
        return States(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), summary)

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels, all of them."""
        return self.states(self._transform(self.patches(pixels) + self.positions))


def masked_vit(config: TowerConfig, spec: DataSpec) -> MaskedViT:
    """Build the tower of a system that hides patches, with the sizes of the config's "vit".

    Raises:
        UserError: for another tower, whose patches cannot be left out, or one that is not trained.
    """
    if config.image_encoder not in ("vit", "masked_vit") or config.image_train not in ("auto", "all"):
        raise UserError(
            f"masked autoencoding trains a vit of its own, got image_encoder={config.image_encoder!r} with "
            f"image_train={config.image_train!r}: leave these settings out"
        )
    return masked_tower(config, spec)


def masked_tower(config: ImageTowerConfig, spec: DataSpec) -> MaskedViT:
    """Build the tower with the sizes of the config's "vit"."""
    return MaskedViT(
        image_size=spec.image_size,
        patch=config.image_patch,
        dim=config.image_dim,
        layers=config.image_layers,
        heads=config.image_heads,
        channels=spec.channels,
        pool="class" if config.image_pool == "auto" else config.image_pool,
        activation=config.tower_activation,
        dropout=config.tower_dropout,
    )


class PixelDecoder(nn.Module):
    """A narrow transformer that gives the pixels of every patch; those the encoder did not read begin as one token.

    Args:
        tower: whose tokens come in.
        dim: width of its own tokens, a multiple of 4.
        layers: blocks.
        heads: attention heads.
        words: width of a text's tokens, which it then reads as well; None for pictures alone.
    """

    positions: Tensor

    def __init__(self, tower: MaskedViT, *, dim: int, layers: int, heads: int, words: int | None = None) -> None:
        super().__init__()
        self.enter = Linear(tower.dim, dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        positions = sincos_positions(dim, rows=tower.side, columns=tower.side)
        self.register_buffer("positions", positions, persistent=False)
        self.transformer = Transformer(dim, heads, layers, activation=tower.activation)
        self.norm = nn.LayerNorm(dim)
        self.pixels = Linear(dim, tower.channels * tower.patch**2)
        for linear in (self.enter, self.pixels):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.enter_words: nn.Linear | None = None
        if words is not None:
            self.enter_words = Linear(words, dim)  # its bias tells words from patches
            nn.init.xavier_uniform_(self.enter_words.weight)
            nn.init.normal_(self.enter_words.bias, std=0.02)

    def forward(
        self, read: Float[Tensor, "b n d"], kept: Int[Tensor, "b k"], text: States | None = None
    ) -> Float[Tensor, "b p e"]:
        """Predict every patch from the class token and the patches kept, and from the words where it reads them."""
        known = self.enter(read)
        blank = self.mask_token.to(known.dtype).expand(len(known), len(self.positions), -1)
        every = blank.scatter(1, kept.unsqueeze(-1).expand(-1, -1, known.shape[-1]), known[:, 1:])
        x = torch.cat([known[:, :1], every + self.positions], dim=1)
        places, mask = x.shape[1], None
        if self.enter_words is not None and text is not None:
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            x, mask = torch.cat([x, self.enter_words(text.tokens)], dim=1), torch.cat([real, text.mask], dim=1)
        y: Tensor = self.pixels(self.norm(self.transformer(x, mask)[:, 1:places]))
        return y


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What the decoder made of pictures that were partly hidden.

    Args:
        predicted: every patch as the decoder has it.
        patches: every patch as it is, in the pixels that the tower normalised.
        hidden: True where the encoder did not read the patch.
        read: the encoder's tokens: class token, then the patches kept.
    """

    predicted: Float[Tensor, "b p e"]
    patches: Float[Tensor, "b p e"]
    hidden: Bool[Tensor, "b p"]
    read: Float[Tensor, "b n d"]


def reconstruct(
    tower: MaskedViT,
    decoder: PixelDecoder,
    image: Shaped[Tensor, "b c h w"],
    noise: Float[Tensor, "b p"],
    *,
    keep: int,
    text: States | None = None,
) -> Reconstruction:
    """Hide all patches but the `keep` with the smallest noise, and predict every one.

    Args:
        tower: reads what is kept.
        decoder: of the tower.
        image: uint8 in [0, 255] or float in [0, 1].
        noise: a number for each patch.
        keep: patches kept of each picture.
        text: what a text tower made of the words, for a decoder that reads them.
    """
    patches = patchify(tower.normalise(image), tower.patch)
    kept = noise.argsort(1)[:, :keep]
    hidden = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, value=False)
    read = tower.read(patches, kept)
    return Reconstruction(decoder(read, kept, text), patches, hidden, read)


def patches_kept(patches: int, mask: float) -> int:
    """Return how many of a picture's patches are kept when a share of them is hidden.

    Raises:
        UserError: when none would be hidden.
    """
    keep = max(1, round(patches * (1 - mask)))
    if keep >= patches:
        raise UserError(
            f"mask={mask} hides none of the {patches} patches of a picture; give a larger mask, or smaller patches"
        )
    return keep


def patch_noise(rows: int, patches: int, *, training: bool, device: torch.device) -> Float[Tensor, "b p"]:
    """Draw the noise that decides what is hidden; in evaluation the same, well spread patches for every picture."""
    if training:
        return torch.rand(rows, patches, device=device)
    places = torch.arange(1, patches + 1, dtype=torch.float64, device=device)
    return (places * GOLDEN).frac().float().expand(rows, -1)
