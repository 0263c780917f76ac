"""Past: keys and values of what was written so far, kept where they were put while the beams change hands.

A beam continues another one, so that the texts of one item form a tree. Moving the cached keys and values of each beam
behind its new parent, as is usual, copies all of them at every step. Here they stay: each row's queries see all slots
of the item through a mask that says which are their ancestors, and only this mask is moved.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Past:
    """Keys and values of one layer, appended in place."""

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._used = 0

    def add(
        self, key: Float[Tensor, "b h q d"], value: Float[Tensor, "b h q d"]
    ) -> tuple[Float[Tensor, "b h s d"], Float[Tensor, "b h s d"]]:
        """Append the newest, and return all."""
        start, end = self._used, self._used + key.shape[2]
        if self._keys is None or self._values is None or end > self._keys.shape[2]:
            self._keys, self._values = (
                _enlarged(old, new, used=start) for old, new in ((self._keys, key), (self._values, value))
            )
        self._keys[:, :, start:end], self._values[:, :, start:end] = key, value
        self._used = end
        return self._keys[:, :, :end], self._values[:, :, :end]


def _enlarged(old: Tensor | None, new: Float[Tensor, "b h q d"], *, used: int) -> Float[Tensor, "b h s d"]:
    """Make room for at least twice as much, eight steps at first."""
    batch, heads, rows, width = new.shape
    room = new.new_empty(batch, heads, 2 * used + 8 * rows, width)
    if old is not None:
        room[:, :, :used] = old[:, :, :used]
    return room


class Tree:
    """Which slots each row descends from; a slot is one row at one step, the same in every layer."""

    def __init__(self) -> None:
        self.length = 0
        self._seen: Tensor | None = None
        self._alone = True

    def grow(self, parents: Int[Tensor, "b k"]) -> Bool[Tensor, "b 1 k s"] | None:
        """Add a step in which row i of an item continues its row `parents[i]` of the step before.

        Returns:
            The slots that each row may see, its own included; None when there has only been one row at a time.
        """
        batch, rows = parents.shape
        self.length += 1
        self._alone = self._alone and rows == 1
        own = torch.eye(rows, dtype=torch.bool, device=parents.device).expand(batch, rows, rows)
        if self._seen is None:
            self._seen = own
        else:
            places = parents.unsqueeze(-1).expand(-1, -1, self._seen.shape[2])
            self._seen = torch.cat([self._seen.gather(1, places), own], dim=2)
        return None if self._alone else self._seen.unsqueeze(1)
