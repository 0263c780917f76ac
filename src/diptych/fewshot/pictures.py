"""Pictures of one source as batches for one model, cheap to be seen again and again.

Where the image tower is frozen, what it made of each picture is kept on disk (`encoders/frozen.py`), so that neither
another run of the same command nor a fine-tuning of what stands on the tower encodes a picture twice. Else the decoded
pixels are kept in memory as long as there is room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.model import PairEncoder
from diptych.data.loader import Example, Loader
from diptych.data.source import Problem, Source
from diptych.encoders.frozen import FeatureStore, image_features
from diptych.encoders.offers import Towered
from diptych.predictor import Predictor

Progress: TypeAlias = Callable[[str, int, int], None]
MEMORY = 2 * 2**30


class Pictures:
    """Batches of some rows of a source.

    Args:
        predictor: whose model will look at them.
        source: where they are.
        memory: bytes of pixels that are kept.
        progress: told what is done, how much of it and how much there is.

    Attributes:
        skipped: pictures that cannot be read, once `read` was called.
    """

    def __init__(
        self, predictor: Predictor, source: Source, *, memory: int = MEMORY, progress: Progress | None = None
    ) -> None:
        self.predictor, self.source, self.progress = predictor, source, progress
        self.skipped: list[Problem] = []
        self._room = memory // (3 * predictor.spec.image_size**2)
        self._held: dict[int, UInt8[Tensor, "3 s s"]] = {}
        self._stored: list[FeatureStore] = []

    def read(self, rows: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " k"], Float[Tensor, "k d"]]:
        """Embed some rows for the first time.

        Returns:
            The rows that can be read, and their unit vectors; the others are in `skipped`.
        """
        model = self.predictor.model
        if isinstance(model, Towered) and model.image_tower.frozen:
            rows = self._store(model, rows)
        assert isinstance(model, PairEncoder)
        there: list[int] = []
        vectors = []
        for batch in self.batches(rows):
            with torch.no_grad():
                vectors.append(model.encode_image(batch).float())
            there += batch.need("pair_id").tolist()
            self._tell("pictures", len(there), len(rows))
        return np.array(there, dtype=np.int64), torch.cat(vectors)

    @torch.no_grad()
    def vectors(self, encoder: PairEncoder, rows: Int64[np.ndarray, " n"]) -> Float[Tensor, "n d"]:
        """Embed rows that could be read with another state of the model."""
        return torch.cat([encoder.encode_image(batch).float() for batch in self.batches(rows)])

    def batches(self, rows: Int64[np.ndarray, " n"], *, size: int = 64) -> Iterator[Batch]:
        """Give the rows in order, some at a time, on the model's device; unreadable ones are left out."""
        if self._stored or all(row in self._held for row in rows.tolist()):
            for start in range(0, len(rows), size):
                yield self.batch(rows[start : start + size])
            return
        spec, crop = self.predictor.spec, self.predictor.crop
        loader = Loader(self.source, rows, _stack, batch_size=size, size=spec.image_size, crop=crop)
        for batch in loader.epoch(0):
            for row, image in zip(batch.need("pair_id").tolist(), batch.need("image"), strict=True):
                if len(self._held) < self._room:
                    self._held[row] = image
            yield batch.to(self.predictor.device)
        self.skipped += loader.skipped

    def batch(self, rows: Int64[np.ndarray, " k"]) -> Batch:
        """Give some rows that could be read as one batch."""
        ids, device = torch.from_numpy(rows), self.predictor.device
        if self._stored:
            image, *mirrored = (store.states(rows) for store in self._stored)
            return Batch(image_states=image, mirrored_states=mirrored[0] if mirrored else None, pair_id=ids).to(device)
        if all(row in self._held for row in rows.tolist()):
            pixels = torch.stack([self._held[row] for row in rows.tolist()])
            return Batch(image=pixels, pair_id=ids).to(device)
        (whole,) = self.batches(rows, size=len(rows))
        return whole

    def _store(self, model: Towered, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
        """Let the frozen tower encode the rows, as far as the cache does not have them."""
        reads = model.reads()
        for mirror in (False, True) if reads.mirrored else (False,):
            what = "mirrored pictures" if mirror else "pictures"

            def told(done: int, total: int, what: str = what) -> None:
                self._tell(f"frozen features of {what}", done, total)

            store = image_features(
                model.image_tower,
                self.source,
                rows,
                keep="tokens" if reads.grid else "summary",
                mirror=mirror,
                progress=told,
            )
            self._stored.append(store)
        self.skipped += self._stored[0].problems
        readable: Int64[np.ndarray, " k"] = self._stored[0].readable
        return readable

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


def _stack(examples: list[Example]) -> Batch:
    images = [example.image for example in examples if example.image is not None]
    return Batch(image=torch.stack(images), pair_id=torch.tensor([example.index for example in examples]))
