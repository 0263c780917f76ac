"""Features of frozen towers, computed once: resumed after a kill, kept on disk, read by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.fill import Maker, Pictures, Progress, Texts, check, fill, key_of
from diptych.encoders.folded import folded
from diptych.encoders.store import StoreFiles, cache_folder

MEMORY = 2 * 2**30


class FeatureStore:
    """What a frozen tower made of pictures or texts, by their numbers.

    Args:
        files: where it is.
        wanted: the numbers that were asked for; `readable` and `missing` are their two parts.
        problems: pictures that could not be read, and why.
        memory: bytes up to which everything is held in memory rather than mapped.
    """

    def __init__(
        self,
        files: StoreFiles,
        wanted: Int64[np.ndarray, " k"],
        problems: Sequence[Problem] = (),
        *,
        memory: int = MEMORY,
    ) -> None:
        self.dim, self.token_dim = files.dim, files.token_dim
        self.folder, self.problems = files.folder, list(problems)
        self._done = files.done()
        self.readable, self.missing = wanted[self._done[wanted]], wanted[~self._done[wanted]]
        self._summary, self._tokens = files.read(memory=memory)
        self._start = torch.from_numpy(files.offsets[:-1])
        self._length = torch.from_numpy(np.diff(files.offsets))

    def states(self, items: Int64[np.ndarray, " k"]) -> States:
        """Return the features of some pictures (rows of the source) or texts (places in the list), as float32.

        Returns:
            Padded to the longest of them; without tokens (n = 0) where only summaries were kept.

        Raises:
            UserError: when one of them was not computed, or could not be read.
        """
        there = self._done[items]
        if not there.all():
            lost = items[~there]
            raise UserError(f"{len(lost)} features are not in {self.folder}, such as that of number {int(lost[0])}")
        rows = torch.from_numpy(items)
        length = self._length[rows]
        mask = torch.arange(int(length.max()) if len(items) > 0 else 0) < length[:, None]
        return States(self._gather(rows, mask), mask, self._summary.index_select(0, rows).float())

    def _gather(self, rows: Int64[Tensor, " k"], mask: Bool[Tensor, "k n"]) -> Float32[Tensor, "k n w"]:
        """Copy the tokens of some items; whole items at once where all have as many."""
        count, longest = len(self._length), mask.shape[1]
        if longest > 0 and len(self._tokens) == count * longest:
            return self._tokens.view(count, longest, self.token_dim).index_select(0, rows).float()
        places = torch.where(mask, self._start[rows, None] + torch.arange(longest), 0)
        tokens = self._tokens.index_select(0, places.flatten()).float().view(*mask.shape, self.token_dim)
        return tokens.masked_fill_(~mask[..., None], 0.0)


def image_features(
    encoder: ImageEncoder,
    source: Source,
    rows: Int64[np.ndarray, " k"],
    *,
    keep: str = "summary",
    mirror: bool = False,
    crop: str | None = None,
    precision: str = "fp32",
    folder: str | Path | None = None,
    batch_size: int = 32,
    workers: int = 2,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> FeatureStore:
    """Run a frozen image tower over pictures of a source, as far as they are not in the cache yet.

    Several processes share the work; each must call this. A picture that cannot be read is left out and listed.

    Args:
        encoder: on the device where it shall run.
        source: whose pictures.
        rows: which of them.
        keep: "summary", or "tokens" for both.
        mirror: encode the mirrored pictures instead.
        crop: "squash" or "center"; as the tower wants it when None.
        precision: "fp32", or "bf16" for less exact features in less time.
        folder: of the cache; `$DIPTYCH_CACHE/features` or `~/.cache/diptych/features` when None.
        batch_size: pictures at once.
        workers: threads that decode.
        memory: bytes up to which the features are held in memory rather than mapped.
        progress: told after each batch how many pictures this process has done, and of how many.

    Returns:
        Features by the numbers of the source's rows.

    Raises:
        UserError: when the tower is not frozen, the disk has no room, or none of the pictures can be read.
    """
    check(encoder, keep, precision)
    crop = encoder.crop if crop is None else crop
    maker = Pictures(folded(encoder), source, crop=crop, mirror=mirror, keep=keep == "tokens", precision=precision)
    key = key_of(encoder.identity(), source.picture_fingerprint(), crop, mirror, keep, precision)
    offsets = np.arange(len(source) + 1, dtype=np.int64) * maker.places()
    about = {
        "of": "mirrored pictures" if mirror else "pictures",
        "source": source.name,
        "tower": type(encoder).__name__,
    }
    widths = {"dim": encoder.dim, "token_dim": encoder.token_dim}
    files = StoreFiles(cache_folder(folder) / key, **widths, offsets=offsets, about=about)
    rows = np.unique(rows)
    batches = np.split(rows, np.arange(batch_size, len(rows), batch_size))
    problems = fill(files, maker, batches, workers=workers, progress=progress)
    store = FeatureStore(files, rows, problems, memory=memory)
    if len(rows) > 0 and len(store.readable) == 0:
        first = problems[0]
        raise UserError(f"none of {len(rows)} pictures can be read, such as {first.where}: {first.what}")
    return store


def text_features(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    context: int | None = None,
    keep: str = "summary",
    precision: str = "fp32",
    folder: str | Path | None = None,
    batch_size: int = 64,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> FeatureStore:
    """Run a frozen text tower over texts, as far as they are not in the cache yet.

    Args:
        encoder: on the device where it shall run.
        tokenizer: that belongs to it.
        texts: what to encode; another list, or order, is another store.
        context: tokens a text is cut to; the tower's own when None.
        keep: "summary", or "tokens" for both.
        precision: "fp32", or "bf16" for less exact features in less time.
        folder: of the cache; `$DIPTYCH_CACHE/features` or `~/.cache/diptych/features` when None.
        batch_size: texts at once; such of like length stand together.
        memory: bytes up to which the features are held in memory rather than mapped.
        progress: told after each batch how many texts this process has done, and of how many.

    Returns:
        Features by the places of the texts.

    Raises:
        UserError: when the tower is not frozen, or the disk has no room.
    """
    check(encoder, keep, precision)
    context = encoder.context if context is None else min(context, encoder.context)
    lengths = np.minimum(tokenizer.lengths(texts), context)
    maker: Maker = Texts(encoder, tokenizer, texts, context=context, keep=keep == "tokens", precision=precision)
    key = key_of(encoder.identity(), tokenizer.fingerprint(), context, keep, precision, *texts)
    offsets = np.concatenate([[0], np.cumsum(lengths if keep == "tokens" else np.zeros_like(lengths))]).astype(np.int64)
    about = {"of": "texts", "tower": type(encoder).__name__}
    widths = {"dim": encoder.dim, "token_dim": encoder.token_dim}
    files = StoreFiles(cache_folder(folder) / key, **widths, offsets=offsets, about=about)
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    batches = np.split(order, np.arange(batch_size, len(order), batch_size))
    fill(files, maker, batches, workers=1, progress=progress)
    return FeatureStore(files, np.arange(len(texts), dtype=np.int64), memory=memory)
