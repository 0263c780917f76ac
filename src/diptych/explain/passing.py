"""One side of a pair on its way through its tower, with gradient, though the tower may be frozen."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.offers import WordTable
from diptych.encoders.swin import Swin
from diptych.explain.watching import Record, watched


@dataclass(frozen=True, slots=True)
class Pass:
    """What happened to one picture or one text.

    Args:
        states: what the tower made of it.
        record: what was seen on the way.
        words: the vectors of a text's tokens; None for a picture.
        channels_last: whether grids are (1, h, w, c), not (1, c, h, w).
    """

    states: States
    record: Record
    words: Tensor | None = None
    channels_last: bool = False

    def features(self) -> list[Tensor]:
        """Return all that evidence can be read from, from the first layer to the last."""
        first = [] if self.words is None else [self.words]
        return [*first, *self.record.blocks] or [self.states.tokens]

    def rows(self, features: Float[Tensor, "..."]) -> Float[Tensor, "n d"]:
        """Bring features, or their gradient, to one row for each place of the grid or token of the text."""
        if features.ndim == 4:
            return features[0].flatten(0, 1) if self.channels_last else features[0].flatten(1).T
        if self.words is not None:
            return features[0, : self.states.tokens.shape[1]]
        count, places = features.shape[1], self.states.tokens.shape[1]
        return features[0, count - (places if places <= count else isqrt(count) ** 2) :]  # a class token stands first


def see(tower: ImageEncoder, image: Shaped[Tensor, "c h w"]) -> Pass:
    """Encode one picture; the gradient comes by its pixels."""
    pixels = tower.normalise(image[None]).detach().requires_grad_()
    with torch.enable_grad(), watched(tower) as record:
        return Pass(tower.encode(pixels), record, channels_last=isinstance(tower, Swin))


def read(tower: TextEncoder, tokens: Int[Tensor, " t"]) -> Pass:
    """Encode one text; the gradient comes by the vectors of its tokens.

    Raises:
        UserError: for a tower that does not say which table these vectors come from.
    """
    vectors: list[Tensor] = []

    def begin(module: object, given: object, output: Tensor) -> Tensor:
        vectors.append(output.detach().requires_grad_())
        return vectors[-1]

    with ExitStack() as undo:
        if isinstance(tower, WordTable):
            undo.callback(tower.word_table().register_forward_hook(begin).remove)
        record = undo.enter_context(watched(tower))
        undo.enter_context(torch.enable_grad())
        states = tower.encode(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool))
    if not vectors:
        raise UserError(
            f"the word vectors of this {type(tower).__name__} cannot be reached, by which gradients would come: "
            "method=occlusion explains any model"
        )
    return Pass(states, record, words=vectors[0])
