"""A decoder over words that looks at something else: one path for training on whole texts and for writing with caches.

In training every word of a text is a query, and a causal mask hides what comes after it. In writing the newest word of
each beam is a query: keys and values of the words before come from a cache, those of what is looked at were computed
once for each item, not for each beam or step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.dropout import Dropout
from diptych.nn.linear import Linear
from diptych.nn.looking import CrossAttention, Looked, SelfAttention
from diptych.nn.packing import Packing
from diptych.nn.past import Past, Tree
from diptych.nn.transformer import MLP


class DecoderLayer(nn.Module, ABC):
    """What a system defines of a decoder: a layer that looks at the levels of an encoding."""

    @abstractmethod
    def look(self, levels: Sequence[Float[Tensor, "i n d"]], *, turned: bool = False) -> Looked:
        """Return the keys and values of what the layer will look at; turned for writing."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "b q d"],
        looked: Looked,
        mask: Bool[Tensor, "i 1 1 n"] | None = None,
        past: Past | None = None,
        hidden: Bool[Tensor, "b 1 q s"] | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Transform words; arguments as for `SelfAttention` and `CrossAttention`."""


class PlainLayer(DecoderLayer):
    """Self-attention, cross-attention to the last level and an MLP, each after a LayerNorm and added to what came in.

    Args:
        dim: width of a word.
        heads: attention heads.
        hidden: width inside the MLP.
        dropout: chance in [0, 1), of what each part adds.
        activation: of the MLP.
    """

    def __init__(self, dim: int, heads: int, *, hidden: int, dropout: float = 0.0, activation: str = "gelu") -> None:
        super().__init__()
        self.back_norm, self.look_norm, self.mlp_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.back = SelfAttention(dim, heads)
        self.cross = CrossAttention(dim, heads)
        self.mlp = MLP(dim, hidden, activation=activation, dropout=dropout)
        self.dropout = Dropout(dropout)

    def look(self, levels: Sequence[Float[Tensor, "i n d"]], *, turned: bool = False) -> Looked:
        """Look at the last level alone."""
        return self.cross.look(levels[-1:], turned=turned)

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
        x = x + self.dropout(self.back(self.back_norm(x), past, hidden, packing))
        x = x + self.dropout(self.cross(self.look_norm(x), looked, mask, packing)[0])
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


class WordDecoder(nn.Module):
    """From words so far, and an encoding to look at, to the logits of the next word.

    Args:
        layers: at least one.
        dim: width of a word.
        vocabulary: token ids.
        positions: one row for each place of a text, learned if it is a parameter; texts are at most as long.
        norm: a LayerNorm after the last layer, for layers that begin with one.
        tied: words go out by the matrix by which they come in.
        scale: what the vectors of words that come in are multiplied with.
        dropout: of the words that come in.
    """

    positions: Tensor

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        dim: int,
        *,
        vocabulary: int,
        positions: Float[Tensor, "t d"],
        norm: bool,
        tied: bool,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.ModuleList(layers)
        self.embedding = nn.Embedding(vocabulary, dim)
        if isinstance(positions, nn.Parameter):
            self.positions = positions
        else:
            self.register_buffer("positions", positions, persistent=False)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()
        self.out = Linear(dim, vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        nn.init.normal_(self.out.weight, std=dim**-0.5)
        if tied:
            self.out.weight = self.embedding.weight

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        levels: Sequence[Float[Tensor, "i n d"]],
        mask: Bool[Tensor, "i n"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Transform whole texts; `logits` makes the next words' logits of them.

        Args:
            tokens: from the begin mark on, padded on the right: a word sees no padding, for it only looks back.
            levels: what is looked at; where it is fewer items than texts, as many texts in a row share each.
            mask: which of it is real.

        Raises:
            UserError: for more tokens than there are places.
        """
        return self._through(self._come_in(tokens, 0), levels, mask)

    def packed(
        self,
        tokens: Int[Tensor, "b t"],
        real: Bool[Tensor, "b t"],
        levels: Sequence[Float[Tensor, "i n d"]],
        mask: Bool[Tensor, "i n"] | None = None,
    ) -> Float[Tensor, "w d"]:
        """Transform the real tokens of whole texts, text by text: as `forward` does, without a thought for padding."""
        self._need_room(tokens.shape[1])
        packing = Packing.of(real)
        words = tokens.flatten().index_select(0, packing.places)
        x = self.scale * self.embedding(words) + self.positions.index_select(0, packing.along())
        return self._through(self.dropout(x).unsqueeze(0), levels, mask, packing).squeeze(0)

    def logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        """Return the logits of the next word."""
        y: Tensor = self.out(x)
        return y

    def begin(self, levels: Sequence[Float[Tensor, "b n d"]], mask: Bool[Tensor, "b n"] | None = None) -> Telling:
        """Prepare for writing about each item."""
        looked = [layer.look(levels, turned=True) for layer in self._layers()]
        return Telling(self, looked, None if mask is None else mask[:, None, None, :])

    def step(self, tokens: Int[Tensor, "b k"], parents: Int[Tensor, "b k"], telling: Telling) -> Float[Tensor, "b k v"]:
        """Read the newest token of each row and return the logits of what follows."""
        x = self._come_in(tokens.unsqueeze(-1), telling.tree.length).squeeze(2)
        hidden = telling.tree.grow(parents)
        for layer, looked, past in zip(self._layers(), telling.looked, telling.pasts, strict=True):
            x = layer(x, looked, telling.mask, past, hidden)
        return self.logits(self.norm(x))

    def _come_in(self, tokens: Int[Tensor, "... t"], start: int) -> Float[Tensor, "... t d"]:
        end = start + tokens.shape[-1]
        self._need_room(end)
        x: Tensor = self.dropout(self.scale * self.embedding(tokens) + self.positions[start:end])
        return x

    def _need_room(self, length: int) -> None:
        if length > len(self.positions):
            raise UserError(f"this decoder writes at most {len(self.positions)} tokens, got {length}")

    def _through(
        self,
        x: Float[Tensor, "b t d"],
        levels: Sequence[Float[Tensor, "i n d"]],
        mask: Bool[Tensor, "i n"] | None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b t d"]:
        cross = None if mask is None else mask[:, None, None, :]
        for layer in self._layers():
            x = layer(x, layer.look(levels), cross, packing=packing)
        y: Tensor = self.norm(x)
        return y

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]


class Telling:
    """Texts in the making about some items: what `nn/decode.py` asks for the next word."""

    def __init__(self, decoder: WordDecoder, looked: list[Looked], mask: Bool[Tensor, "b 1 1 n"] | None) -> None:
        self.decoder, self.looked, self.mask = decoder, looked, mask
        self.pasts = [Past() for _ in looked]
        self.tree = Tree()

    def __call__(self, tokens: Int[Tensor, "b k"], parents: Int[Tensor, "b k"]) -> Float[Tensor, "b k v"]:
        """Return the logits of what follows the newest token of each row."""
        return self.decoder.step(tokens, parents, self)


def sinusoids(length: int, dim: int) -> Float[Tensor, "t d"]:
    """Return the fixed positions of Vaswani et al. 2017: sines in even columns, cosines in odd ones.

    Raises:
        UserError: when the width is odd.
    """
    if dim % 2 != 0:
        raise UserError(f"sine positions need an even width, got {dim}")
    place = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    angle = place * 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).float()
