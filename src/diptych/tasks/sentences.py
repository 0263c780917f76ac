"""Sentences: a corpus as numbers of words, and batches of its sentences with noise words, made without a loop."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from diptych.core import runtime
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.data.tokenizer import Tokenizer

NOISE_POWER = 0.75
_ORDER, _MAKE = 0, 1  # what random numbers are for


@dataclass(frozen=True, slots=True)
class Corpus:
    """Sentences one after another, without the words that have no number.

    Args:
        words: of all sentences.
        first: where each sentence begins, and at last the end of all.
    """

    words: Int64[np.ndarray, " w"]
    first: Int64[np.ndarray, " s"]

    @classmethod
    def read(cls, texts: Iterable[str], tokenizer: Tokenizer) -> Corpus:
        """Number the words of texts."""
        found = [encoding.ids for encoding in tokenizer.backend.encode_batch_fast(list(texts))]
        lengths = np.array([len(ids) for ids in found], dtype=np.int64)
        words = np.fromiter((word for ids in found for word in ids), dtype=np.int64, count=int(lengths.sum()))
        known = (words != tokenizer.unk_id) & (words != tokenizer.pad_id)
        before = np.concatenate([[0], np.cumsum(known)]).astype(np.int64)
        return cls(words[known], before[np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)])

    def __len__(self) -> int:
        """Count the sentences."""
        return len(self.first) - 1

    def counts(self, vocabulary: int) -> Int64[np.ndarray, " v"]:
        """Count each word."""
        return np.bincount(self.words, minlength=vocabulary).astype(np.int64)

    def rows(
        self, sentences: Int64[np.ndarray, " b"], keep: Float64[np.ndarray, " v"], rng: np.random.Generator
    ) -> tuple[Int64[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
        """Return some sentences as rows, each word kept with its probability; what was dropped leaves no gap."""
        start, lengths = self.first[sentences], np.diff(self.first)[sentences]
        row = np.repeat(np.arange(len(sentences)), lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        words = self.words[np.repeat(start, lengths) + place]
        kept = rng.random(len(words)) < keep[words]
        row, words = row[kept], words[kept]
        lengths = np.bincount(row, minlength=len(sentences))
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        mask = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
        tokens = np.zeros(mask.shape, dtype=np.int64)
        tokens[row, place] = words
        return tokens, mask


def kept_share(counts: Int64[np.ndarray, " v"], threshold: float) -> Float64[np.ndarray, " v"]:
    """Return the probability that a word is kept: sqrt(t / f) + t / f for its share f of the corpus, at most 1.

    Reference:
        word2vec.c; the paper's formula, 1 - sqrt(t / f) to be dropped, differs slightly from the code.
    """
    if threshold <= 0:
        return np.ones(len(counts))
    ratio = threshold * max(1, int(counts.sum())) / np.maximum(counts, 1)
    share: Float64[np.ndarray, " v"] = np.minimum(1.0, np.sqrt(ratio) + ratio)
    return share


class SentenceBatches:
    """Batches of sentences, exact and without state: random numbers are a function of (seed, epoch, batch).

    Args:
        corpus: sentences.
        counts: of each word, for noise and for dropping frequent words.
        batch_size: sentences in a batch of all processes together.
        noise: noise words of each sentence, drawn by counts to the power of 3/4.
        threshold: share of the corpus above which words are dropped at times; 0 drops none.
        seed: of order, dropping and noise.
        training: shuffle, cut among processes, and leave out the last, smaller batch.
    """

    def __init__(
        self,
        corpus: Corpus,
        counts: Int64[np.ndarray, " v"],
        *,
        batch_size: int,
        noise: int,
        threshold: float,
        seed: int,
        training: bool,
    ) -> None:
        self.corpus, self.noise, self.seed, self.training = corpus, noise, seed, training
        self.whole = min(batch_size, len(corpus)) if training else batch_size
        self.world, self.rank = (runtime.world(), runtime.rank()) if training else (1, 0)
        if self.whole % self.world:
            fits = max(1, self.whole // self.world) * self.world
            raise UserError(f"batch_size {self.whole} is not a multiple of {self.world} processes; use {fits}")
        self.keep = kept_share(counts, threshold)
        self.noise_below = np.cumsum(counts.astype(np.float64) ** NOISE_POWER)

    @property
    def batch_size(self) -> int:
        """Sentences in a full batch of this process."""
        return self.whole // self.world

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return len(self.corpus) // self.whole if self.training else -(-len(self.corpus) // self.whole)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch from `start` on."""
        order = np.arange(len(self.corpus))
        if self.training:
            order = np.random.default_rng((self.seed, epoch, _ORDER)).permutation(len(self.corpus))
        for number in range(start, len(self)):
            yield self._batch(order[number * self.whole : (number + 1) * self.whole], epoch, number)

    def _batch(self, sentences: Int64[np.ndarray, " b"], epoch: int, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, epoch, _MAKE, number))
        tokens, mask = self.corpus.rows(sentences, self.keep, rng)
        negatives = self._noise(len(sentences), rng)
        each = len(sentences) // self.world
        own = slice(self.rank * each, (self.rank + 1) * each)
        return Batch(
            tokens=torch.from_numpy(tokens[own]),
            token_mask=torch.from_numpy(mask[own]),
            negatives=torch.from_numpy(negatives[own]),
        )

    def _noise(self, rows: int, rng: np.random.Generator) -> Int64[np.ndarray, "b k"]:
        drawn = rng.random((rows, self.noise)) * self.noise_below[-1]
        found = np.searchsorted(self.noise_below, drawn.ravel(), side="right")
        words: Int64[np.ndarray, "b k"] = found.clip(max=len(self.noise_below) - 1).reshape(drawn.shape)
        return words


def lines_of(path: str) -> list[str]:
    """Read sentences from a file, one a line; of a table with tabs the last column. It may be packed with gzip.

    Raises:
        UserError: when there is no such file, or it is no text.
    """
    if not path:
        return []
    try:
        content = Path(path).read_bytes()
        text = (gzip.decompress(content) if path.endswith(".gz") else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read sentences from {path!r}: {error}") from None
    return [line.rpartition("\t")[2] for line in text.splitlines() if line.strip()]
