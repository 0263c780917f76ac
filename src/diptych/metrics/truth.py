"""Which texts belong to which images, told tile by tile, so that no list of all positives is ever needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from diptych.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Truth:
    """Positives between images and texts, both put in the order of their ids so that the positives lie together.

    A group is the images with one id; `pair_group` and `pair_key` list each sentence of each group once.
    """

    image_order: Int[Tensor, " m"]
    text_order: Int[Tensor, " n"]
    group: Int[Tensor, " m"]
    key: Int[Tensor, " n"]
    pair_group: Int[Tensor, " p"]
    pair_key: Int[Tensor, " p"]

    @classmethod
    def of(cls, image_id: Int[Tensor, " m"], text_id: Int[Tensor, " n"], text_key: Int[Tensor, " n"]) -> Truth:
        """Sort both sides by id; text j is true of image i when a text with i's id has j's key.

        Raises:
            UserError: when there is nothing, an image has no text or a text has no image.
        """
        if len(image_id) == 0 or len(text_id) == 0:
            raise UserError(f"cannot rank {len(image_id)} images and {len(text_id)} texts: give at least one of each")
        ids, image_group = torch.unique(image_id, return_inverse=True)
        text_group = torch.searchsorted(ids, text_id).clamp_(max=len(ids) - 1)
        orphans = int((ids[text_group] != text_id).sum())
        if orphans:
            raise UserError(f"{orphans} of {len(text_id)} texts have an id that no image has: leave them out")
        bare = int((torch.bincount(text_group, minlength=len(ids)) == 0).sum())
        if bare:
            raise UserError(f"{bare} of {len(ids)} image ids have no text: leave those images out")
        image_order, text_order = image_group.argsort(stable=True), text_group.argsort(stable=True)
        key = _by_first_use(text_key[text_order])
        pairs = torch.unique(text_group[text_order] * len(key) + key)
        return cls(image_order, text_order, image_group[image_order], key, pairs // len(key), pairs % len(key))

    def tiles(self, rows: int, columns: int) -> Iterator[tuple[int, int, Int[Tensor, " p"], Int[Tensor, " p"]]]:
        """Walk over all tiles of the score matrix, row by row.

        Yields:
            The first row and column of the tile, and the positives inside it as row and column numbers within it.
        """
        none = self.key.new_empty(0)
        texts = [_Keys.of(part) for part in torch.split(self.key, columns)]
        for row, group in zip(range(0, len(self.group), rows), torch.split(self.group, rows), strict=True):
            ends = torch.stack([group[0], group[-1] + 1])
            first, last = torch.searchsorted(self.pair_group, ends).tolist()
            mine, keys = self.pair_group[first:last], self.pair_key[first:last]
            start = torch.searchsorted(group, mine)
            count = torch.searchsorted(group, mine, right=True) - start
            low, high = int(keys.min()), int(keys.max())
            for column, there in zip(range(0, len(self.key), columns), texts, strict=True):
                if there.low > high or there.high < low:
                    yield row, column, none, none
                    continue
                pair, position = there.find(keys)
                chosen, at = _runs(start[pair], count[pair])
                yield row, column, at, position[chosen]


@dataclass(frozen=True, slots=True)
class _Keys:
    """The sentences of one tile's columns, sorted for look-up."""

    keys: Int[Tensor, " c"]
    order: Int[Tensor, " c"]
    low: int
    high: int

    @classmethod
    def of(cls, keys: Int[Tensor, " c"]) -> _Keys:
        ordered, order = keys.sort(stable=True)
        return cls(ordered, order, int(ordered[0]), int(ordered[-1]))

    def find(self, wanted: Int[Tensor, " p"]) -> tuple[Int[Tensor, " q"], Int[Tensor, " q"]]:
        """Return every match: which of the wanted keys, and its column."""
        first = torch.searchsorted(self.keys, wanted)
        found = torch.searchsorted(self.keys, wanted, right=True) - first
        which, at = _runs(first, found)
        return which, self.order[at]


def _by_first_use(key: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Renumber keys in the order in which they first come, so that a tile holds a narrow range of them."""
    names, inverse = torch.unique(key, return_inverse=True)
    place = torch.arange(len(key), device=key.device)
    first = place.new_full((len(names),), len(key)).scatter_reduce_(0, inverse, place, "amin")
    renamed = torch.empty_like(first)
    renamed[first.argsort()] = torch.arange(len(names), device=key.device)
    return renamed[inverse]


def _runs(start: Int[Tensor, " p"], count: Int[Tensor, " p"]) -> tuple[Int[Tensor, " q"], Int[Tensor, " q"]]:
    """Spell out the runs start, start + 1, ... of the given lengths: whose each number is, and the number."""
    whose = torch.repeat_interleave(count)
    before = count.cumsum(0) - count
    place = torch.arange(len(whose), device=start.device)
    return whose, start[whose] + place - before[whose]
