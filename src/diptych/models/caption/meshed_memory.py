"""Meshed-Memory Transformer (M2): cells remember what was learnt of all pictures, words look at every encoder layer.

In the encoder each layer's attention finds, beside the cells, learned memory slots. In the decoder each layer looks at
all encoder layers by the same map, and gates say how much of each is taken.

Reference:
    Cornia et al. 2019, arXiv 1912.08226. As in their code: slots are appended to keys and values after the projection,
    drawn from N(0, 1/d) and N(0, 1/m) and used times sqrt(d) and sqrt(m); the gated sum over N levels is divided by
    sqrt(N); layers are normed after they add. The paper's sizes are dim 512, hidden 2048, three layers each and
    positions=false, on regions of a detector; here any image tower's grid is read, each cell may know its place, and
    the summary is one cell more. Their mask of padded regions never worked; here padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders.base import ImageEncoder
from diptych.encoders.towers import build_image
from diptych.models.captioning import CaptionConfig, CaptionModel
from diptych.nn.attention import attend
from diptych.nn.decoder import DecoderLayer, WordDecoder, sinusoids
from diptych.nn.dropout import Dropout
from diptych.nn.linear import Linear
from diptych.nn.looking import CrossAttention, Looked, SelfAttention
from diptych.nn.packing import Packing
from diptych.nn.past import Past
from diptych.nn.transformer import MLP


class Config(CaptionConfig):
    """What a Meshed-Memory Transformer is made of."""

    encoder_layers: int = Field(default=3, ge=1, description="layers over the cells; words look at each of them")
    decoder_layers: int = Field(default=3, ge=1, description="layers over the words")
    memory: int = Field(default=40, ge=0, description="learned slots that each encoder layer finds beside the cells")


class MemoryAttention(nn.Module):
    """Attention over the cells and over learned slots of keys and values; plain attention where there are none.

    Args:
        dim: width of a cell.
        heads: parts that the width is split into.
        slots: how many.

    Raises:
        UserError: when the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int, *, slots: int) -> None:
        super().__init__()
        if dim % heads != 0:
            raise UserError(f"the width must be a multiple of the heads, got dim={dim} and heads={heads}")
        self.heads, self.slots = heads, slots
        self.query, self.key, self.value, self.out = (Linear(dim, dim) for _ in range(4))
        width = dim // heads
        self.memory_key = nn.Parameter(torch.randn(slots, dim) * width**-0.5) if slots > 0 else None
        self.memory_value = nn.Parameter(torch.randn(slots, dim) * slots**-0.5) if slots > 0 else None
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Let each cell look at the real cells and the slots."""
        key, value = self.key(x), self.value(x)
        if self.memory_key is not None and self.memory_value is not None:
            width = x.shape[2] // self.heads
            key = torch.cat([key, (width**0.5 * self.memory_key).expand(len(x), -1, -1)], dim=1)
            value = torch.cat([value, (self.slots**0.5 * self.memory_value).expand(len(x), -1, -1)], dim=1)
            mask = None if mask is None else nn.functional.pad(mask, (0, self.slots), value=True)
        parts = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(x), key, value))
        seen = None if mask is None else mask[:, None, None, :]
        mixed = attend(*parts, seen=seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class MemoryLayer(nn.Module):
    """Attention with memory, then an MLP, each added to what came in and normed after."""

    def __init__(self, dim: int, heads: int, *, hidden: int, slots: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = MemoryAttention(dim, heads, slots=slots)
        self.mlp = MLP(dim, hidden, activation="relu", dropout=dropout)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Transform the cells."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        y: Tensor = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return y


class MeshedLayer(DecoderLayer):
    """Words look back, then at every level of the encoding, as far as a gate for each level lets through.

    Args:
        dim: width of a word.
        heads: attention heads.
        levels: of the encoding.
        hidden: width inside the MLP.
        dropout: chance in [0, 1), of what each part adds.
    """

    def __init__(self, dim: int, heads: int, *, levels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.levels = levels
        self.back = SelfAttention(dim, heads)
        self.cross = CrossAttention(dim, heads)
        # A gate reads [words; what was found]: the words' half is one map for all levels, the other half one for each.
        self.gate_words = Linear(dim, levels * dim)
        self.gate_found = nn.Parameter(torch.randn(levels, dim, dim) * (2 * dim) ** -0.5)
        self.mlp = MLP(dim, hidden, activation="relu", dropout=dropout)
        self.back_norm, self.look_norm, self.mlp_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.gate_words.weight, std=(2 * dim) ** -0.5)
        nn.init.zeros_(self.gate_words.bias)

    def look(self, levels: Sequence[Float[Tensor, "i n d"]], *, turned: bool = False) -> Looked:
        """Look at every level by the same map."""
        return self.cross.look(levels, turned=turned)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        looked: Looked,
        mask: Bool[Tensor, "i 1 1 n"] | None = None,
        past: Past | None = None,
        hidden: Bool[Tensor, "b 1 q s"] | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Transform words."""
        x = self.back_norm(x + self.dropout(self.back(x, past, hidden, packing)))
        found = self.look_norm(x + self.dropout(self.cross(x, looked, mask, packing)))
        gate = self.gate_words(x).unflatten(-1, (self.levels, -1)).movedim(2, 0)
        gate = torch.sigmoid(gate + (found.flatten(1, 2) @ self.gate_found).view_as(found))
        x = (found * gate).sum(0) / self.levels**0.5
        y: Tensor = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return y


class MeshedMemory(CaptionModel):
    """An encoder with memory, all layers of which the decoder sees."""

    def __init__(self, image: ImageEncoder, decoder: WordDecoder, config: Config, spec: DataSpec) -> None:
        super().__init__(image, decoder, config, spec)
        self.norm, self.dropout = nn.LayerNorm(config.dim), Dropout(config.dropout)
        sizes = {"hidden": config.hidden, "slots": config.memory}
        self.encoder = nn.ModuleList(
            MemoryLayer(config.dim, config.heads, **sizes, dropout=config.dropout) for _ in range(config.encoder_layers)
        )

    def encode(
        self, cells: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n d"], ...]:
        """Let the cells look at each other and at the memory, and return what every layer makes of them."""
        x = self.norm(self.dropout(cells.relu()))
        levels: list[Tensor] = []
        for layer in self.encoder:
            x = layer(x, mask)
            levels.append(x)
        return tuple(levels)


def build(config: Config, spec: DataSpec) -> MeshedMemory:
    """Build the image tower the config names, and a meshed decoder for the words of the spec."""
    layers = [
        MeshedLayer(
            config.dim, config.heads, levels=config.encoder_layers, hidden=config.hidden, dropout=config.dropout
        )
        for _ in range(config.decoder_layers)
    ]
    decoder = WordDecoder(
        layers,
        config.dim,
        vocabulary=spec.vocabulary,
        positions=sinusoids(config.text_context - 1, config.dim),
        norm=False,
        tied=config.tied,
        scale=config.dim**0.5,
        dropout=config.dropout,
    )
    return MeshedMemory(build_image(config, spec), decoder, config, spec)
