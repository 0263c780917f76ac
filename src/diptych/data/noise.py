"""Noisy: a share of the training pictures have the captions of one another, to study what wrong pairs cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diptych.data.source import Row, Source
from diptych.data.view import View


class Noisy(View):
    """A source in which some training pictures have another's captions, always the same ones; dev and test are right.

    Args:
        source: what is disturbed.
        share: of the training pictures that have captions, in [0, 1].
        seed: which pictures, and whose captions they get.
    """

    def __init__(self, source: Source, share: float, *, seed: int = 0) -> None:
        rows = [row for row in source.rows("train").tolist() if source.row(row).captions]
        chosen = np.random.default_rng(seed).permutation(rows)[: round(share * len(rows))].astype(np.int64)
        self.givers = np.arange(len(source), dtype=np.int64)
        self.givers[chosen] = np.roll(chosen, 1)  # round a circle, so that none keeps its own
        super().__init__(source, how=f"{len(chosen):,} of {len(rows):,} training pictures have wrong captions ({seed})")

    def change(self, row: Row, place: int) -> Row:
        """Give a chosen row the captions of another."""
        giver = int(self.givers[place])
        return row if giver == place else replace(row, captions=self.source.row(giver).captions)
