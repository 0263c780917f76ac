"""Skip-gram: a vector for each word, learnt by telling the words around it from noise.

Reference:
    Mikolov et al. 2013, arXiv 1301.3781 and 1310.4546. Vectors of words begin uniform in +-0.5 / dim, those of
    neighbours at zero, as in word2vec's code. Whole sentences are rows of a batch, and AdamW moves the vectors where
    the code takes plain steps, word by word. Windows are weights rather than drawn, and the words of a sentence share
    their noise words (see `objectives/skipgram.py`).
"""

from __future__ import annotations

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss
from diptych.models.embedding import SkipgramConfig, SkipgramModel


class Config(SkipgramConfig):
    """What a skip-gram model is made of."""


class Skipgram(SkipgramModel):
    """Two tables of vectors."""

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the mean over sentences, in nats a sentence; `pair` is the mean over neighbours."""
        loss, pairs, _ = self.neighbours(batch)
        return Loss(loss.mean(), {"pair": loss.detach().sum() / pairs.clamp(min=1e-9)})


def build(config: Config, spec: DataSpec) -> Skipgram:
    """Build the tables for `spec.vocabulary` words."""
    return Skipgram(config, spec)
