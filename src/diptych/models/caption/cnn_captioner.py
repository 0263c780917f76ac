"""CNN captioner: a convolution network sees, a plain transformer encodes its grid and writes word by word.

Reference:
    Vinyals et al. 2014, arXiv 1411.4555; Xu et al. 2015, arXiv 1502.03044 (attention over the grid); Rennie et al.
    2016, arXiv 1612.00563 (self-critical training). In the place of their LSTM stands the transformer of Vaswani et
    al. 2017, arXiv 1706.03762, with the norms before the layers and learned word positions, as in GPT-2. Any image
    tower will do.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diptych.core.batch import DataSpec
from diptych.encoders.base import ImageEncoder
from diptych.encoders.towers import build_image
from diptych.models.captioning import CaptionConfig, CaptionModel
from diptych.nn.decoder import PlainLayer, WordDecoder
from diptych.nn.transformer import Transformer


class Config(CaptionConfig):
    """What a plain captioner is made of, all inherited."""


class CNNCaptioner(CaptionModel):
    """An encoder of which the decoder sees the last layer."""

    def __init__(self, image: ImageEncoder, decoder: WordDecoder, config: Config, spec: DataSpec) -> None:
        super().__init__(image, decoder, config, spec)
        self.encoder = Transformer(
            config.dim, config.heads, config.encoder_layers, hidden=config.hidden, dropout=config.dropout
        )
        self.norm = nn.LayerNorm(config.dim)

    def encode(
        self, cells: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n d"], ...]:
        """Let the cells look at each other."""
        return (self.norm(self.encoder(cells, mask)),)


def build(config: Config, spec: DataSpec) -> CNNCaptioner:
    """Build the image tower the config names, and a decoder for the words of the spec."""
    layers = [
        PlainLayer(config.dim, config.heads, hidden=config.hidden, dropout=config.dropout)
        for _ in range(config.decoder_layers)
    ]
    decoder = WordDecoder(
        layers,
        config.dim,
        vocabulary=spec.vocabulary,
        positions=nn.Parameter(0.01 * torch.randn(config.text_context - 1, config.dim)),
        norm=True,
        tied=config.tied,
        dropout=config.dropout,
    )
    return CNNCaptioner(build_image(config, spec), decoder, config, spec)
