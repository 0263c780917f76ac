"""Packing: the real tokens of padded texts in a row, so that what treats each token by itself skips the padding.

Captions are of very different length: of a batch padded to its longest, half is padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the tokens of a row stood before.

    Args:
        texts: how many there are.
        longest: tokens of a padded text.
        places: of each real token among all places, text by text.
    """

    texts: int
    longest: int
    places: Int[Tensor, " w"]

    @classmethod
    def of(cls, real: Bool[Tensor, "b t"]) -> Packing:
        """Pack what is real."""
        texts, longest = real.shape
        return cls(texts, longest, real.flatten().nonzero().squeeze(1))

    def pad(self, x: Float[Tensor, "1 w e"]) -> Float[Tensor, "b t e"]:
        """Put each token back where it stood, among zeros."""
        wide = x.new_zeros(self.texts * self.longest, x.shape[2]).index_copy(0, self.places, x[0])
        return wide.view(self.texts, self.longest, -1)

    def take(self, x: Float[Tensor, "... b t e"]) -> Float[Tensor, "... 1 w e"]:
        """Take the real tokens out of padded texts."""
        flat = x.flatten(-3, -2)
        return flat.index_select(-2, self.places).unsqueeze(-3)

    def along(self) -> Int[Tensor, " w"]:
        """Return the place of each token in its text."""
        return self.places % self.longest
