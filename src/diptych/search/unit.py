"""Vectors of length 1, from whatever arrays or tensors are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from diptych.core.errors import UserError

Vectors = NDArray[Any] | Tensor
"""Numbers of any precision, on any device: one row per vector."""


def unit(vectors: Vectors, *, dim: int, names: Sequence[str] | None = None) -> Float32[np.ndarray, "n d"]:
    """Bring vectors to length 1 in float32.

    Args:
        vectors: one row each, or a single vector.
        dim: the length that each row must have.
        names: what an error calls each row; its number when not given.

    Raises:
        UserError: for another dimension, a row that is not finite, or one that is all zeros.
    """
    plain: NDArray[np.float64]
    plain = vectors.detach().double().cpu().numpy() if isinstance(vectors, Tensor) else vectors.astype(np.float64)
    rows = plain[None] if plain.ndim == 1 else plain
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise UserError(f"vectors of shape {tuple(plain.shape)} do not fit: this index holds vectors of {dim} numbers")
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(bad):
        what = "is all zeros and has no direction" if length[bad[0]] == 0 else "holds NaN or infinity"
        which = f"query {bad[0]}" if names is None else f"{names[bad[0]]!r}"
        raise UserError(f"the vector of {which} {what}: leave it out or encode it again")
    scaled: NDArray[np.float32] = (rows / length[:, None]).astype(np.float32)
    return scaled
