"""Past: keys and values of what was written so far, kept where they were put while the beams change hands.

A beam continues another one, so that the texts of one item form a tree. Moving the cached keys and values of each beam
behind its new parent, as is usual, copies all of them at every step. Here they stay: each row's queries see all slots
of the item but for those that a mask hides, which are not its ancestors', and only this mask is moved.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Past:
    """Keys and values of one layer, appended in place; keys are turned, (b, h, d, s)."""

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._used = 0

    def add(
        self, key: Float[Tensor, "b h d q"], value: Float[Tensor, "b h q d"]
    ) -> tuple[Float[Tensor, "b h d s"], Float[Tensor, "b h s d"]]:
        """Append the newest, and return all."""
        start, end = self._used, self._used + value.shape[2]
        if self._keys is None or self._values is None or end > self._values.shape[2]:
            room = 2 * start + 8 * value.shape[2]
            self._keys = _enlarged(self._keys, key, 3, used=start, room=room)
            self._values = _enlarged(self._values, value, 2, used=start, room=room)
        self._keys[..., start:end], self._values[:, :, start:end] = key, value
        self._used = end
        return self._keys[..., :end], self._values[:, :, :end]


def _enlarged(old: Tensor | None, new: Float[Tensor, "b h _ _"], axis: int, *, used: int, room: int) -> Tensor:
    """Make an axis longer."""
    shape = list(new.shape)
    shape[axis] = room
    larger = new.new_empty(shape)
    if old is not None:
        larger.narrow(axis, 0, used).copy_(old.narrow(axis, 0, used))
    return larger


class Tree:
    """Which slots each row descends from; a slot is one row at one step, the same in every layer."""

    def __init__(self) -> None:
        self.length = 0
        self._hidden: Tensor | None = None
        self._alone = True

    def grow(self, parents: Int[Tensor, "b k"]) -> Bool[Tensor, "b 1 k s"] | None:
        """Add a step in which row i of an item continues its row `parents[i]` of the step before.

        Returns:
            The slots that each row may not see; None when there has only been one row at a time.
        """
        batch, rows = parents.shape
        self.length += 1
        self._alone = self._alone and rows == 1
        others = ~torch.eye(rows, dtype=torch.bool, device=parents.device).expand(batch, rows, rows)
        if self._hidden is None:
            self._hidden = others
        else:
            places = parents.unsqueeze(-1).expand(-1, -1, self._hidden.shape[2])
            self._hidden = torch.cat([self._hidden.gather(1, places), others], dim=2)
        return None if self._alone else self._hidden.unsqueeze(1)
