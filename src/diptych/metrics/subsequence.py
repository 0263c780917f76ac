"""The longest common subsequence of many pairs of sentences at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diptych.metrics.ngrams import Sentences

_AT_ONCE = 4096  # pairs in one table; pairs of like length stand together, so that little of a table is padding


def common(
    left: Sentences, right: Sentences, of_left: NDArray[np.int64], of_right: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the length of the longest common subsequence of each pair, in words.

    Args:
        left: sentences, in the same word numbers as the others.
        right: the other sentences.
        of_left: sentence of the first side, for each pair.
        of_right: sentence of the second side.
    """
    found = np.zeros(len(of_left), dtype=np.int64)
    order = np.lexsort((right.lengths[of_right], left.lengths[of_left]))
    for start in range(0, len(order), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        found[part] = _common(_padded(left, of_left[part], -1), _padded(right, of_right[part], -2))
    return found


def _padded(sentences: Sentences, which: NDArray[np.int64], filler: int) -> NDArray[np.int64]:
    """Return words of some sentences, one row each, the rows filled up with a number that is no word."""
    ends = np.cumsum(sentences.lengths)[which]
    lengths = sentences.lengths[which]
    places = np.arange(lengths.max(initial=0))
    real = places < lengths[:, None]
    rows = np.full(real.shape, filler, dtype=np.int64)
    rows[real] = sentences.words[((ends - lengths)[:, None] + places)[real]]
    return rows


def _common(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill the usual table row by row: an entry is the most of those up to it, so a row is a running maximum."""
    pairs, width = right.shape
    before = np.zeros((pairs, width + 1), dtype=np.int16)
    for column in range(left.shape[1]):
        taken = before[:, :-1] + (left[:, column, None] == right)
        np.maximum(taken, before[:, 1:], out=taken)
        np.maximum.accumulate(taken, axis=1, out=before[:, 1:])
    return before[:, -1].astype(np.int64)
