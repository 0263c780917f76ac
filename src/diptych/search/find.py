"""Find: what is nearest by vectors and words, or in the order of a model that looks closer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from diptych.core.errors import UserError
from diptych.search.index import Hit, Index


def find_hybrid(
    index: Index, vector: Float32[np.ndarray, " d"], words: object, *, k: int, where: dict[str, Any] | None
) -> list[Hit]:
    """Find by a vector and by the words of the stored captions.

    Raises:
        UserError: when what is looked for has no words.
    """
    if not isinstance(words, str):
        raise UserError("a hybrid search needs words: give a text, or search by the picture alone")
    return index.hybrid(vector, words, k=k, where=where)


def reorder(hits: list[Hit], scores: Float32[np.ndarray, " n"], *, k: int) -> list[Hit]:
    """Put hits in the order of a score, which becomes theirs; the k best."""
    order = np.argsort(-scores, kind="stable")[:k]
    return [replace(hits[place], score=float(scores[place])) for place in order.tolist()]
