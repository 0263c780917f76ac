"""What the systems that learn word vectors share: two tables, and the loss of telling neighbours from noise."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError, unknown
from diptych.core.model import Model, WordEmbedder
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.towers import Count, ImageTowerConfig
from diptych.objectives.skipgram import skipgram, windows


class SkipgramConfig(Config):
    """What a skip-gram model is made of."""

    learns: ClassVar[str] = "words"

    text_vocabulary: Count = Field(default=50_000, description="words learnt from the captions, at most")
    least: Count = Field(default=5, description="how often a word must be there to get a vector")
    dim: Count = Field(default=100, description="width of the word vectors")
    window: Count = Field(default=5, description="words on either side that are neighbours")
    noise: Count = Field(default=5, description="noise words that each neighbour is told from")


class PicturedConfig(SkipgramConfig, ImageTowerConfig):
    """What a skip-gram model that looks at pictures is made of; the image tower's fields are inherited."""

    image_encoder: str = "microsoft/resnet-50"
    image_train: str = "frozen"


class SkipgramModel(Model, WordEmbedder, ABC):
    """Vectors of words and of words as neighbours; the first begin small and random, the second at zero.

    Args:
        config: of the system.
        spec: the data it is built for.
    """

    def __init__(self, config: SkipgramConfig, spec: DataSpec) -> None:
        super().__init__()
        self.window, self.noise = config.window, config.noise
        self.centre = nn.Embedding(spec.vocabulary, config.dim)
        self.around = nn.Embedding(spec.vocabulary, config.dim)
        nn.init.uniform_(self.centre.weight, -0.5 / config.dim, 0.5 / config.dim)
        nn.init.zeros_(self.around.weight)

    def word_vectors(self) -> Float[Tensor, "v d"]:
        """Return the vectors of the words."""
        return self.centre.weight

    def neighbours(self, batch: Batch) -> tuple[Float[Tensor, " b"], Float[Tensor, ""], Float[Tensor, "b t d"]]:
        """Return the loss of each row in nats, the weight of all pairs, and the vectors of the rows' words."""
        tokens, negatives = batch.need("tokens"), batch.need("negatives")
        centre = self.centre(tokens)
        weight = windows(batch.need("token_mask"), self.window, dtype=centre.dtype)
        loss = skipgram(
            centre, self.around(tokens), self.around(negatives), tokens, negatives, weight, count=self.noise
        )
        return loss, weight.sum(), centre


def nearest(model: Model, tokenizer: Tokenizer, word: str, count: int = 10) -> list[tuple[str, float]]:
    """Find the words of the nearest vectors.

    Args:
        model: one with word vectors.
        tokenizer: of its words.
        word: one of them.
        count: words to find.

    Returns:
        Words with their cosines, the nearest first, without the word itself.

    Raises:
        UserError: for a model without word vectors, or a word that it does not have.
    """
    unit = F.normalize(vectors(model).float(), dim=1)
    own = number(tokenizer, word)
    cosines = unit @ unit[own]
    marks = [mark for mark in (tokenizer.pad_id, tokenizer.unk_id) if mark >= 0]
    cosines[[own, *marks]] = -torch.inf
    best = cosines.topk(min(count, len(cosines) - 1 - len(marks)))
    names = [str(tokenizer.backend.id_to_token(place)) for place in best.indices.tolist()]
    return list(zip(names, best.values.tolist(), strict=True))


def vectors(model: Model) -> Float[Tensor, "v d"]:
    """Return the word vectors of a model.

    Raises:
        UserError: when it has none.
    """
    if not isinstance(model, WordEmbedder):
        raise UserError(f"{type(model).__name__} has no word vectors; skipgram and multimodal_skipgram do")
    return model.word_vectors().detach()


def number(tokenizer: Tokenizer, word: str) -> int:
    """Return the number of a word.

    Raises:
        UserError: when the vocabulary does not have it; the nearest in spelling is suggested.
    """
    ids = tokenizer.backend.encode(word).ids
    if len(ids) != 1 or ids[0] in (tokenizer.pad_id, tokenizer.unk_id):
        known = set(tokenizer.backend.get_vocab()) - set(tokenizer.special.values())
        raise unknown("word", word, known)
    return int(ids[0])
