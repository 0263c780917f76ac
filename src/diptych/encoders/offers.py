"""What a system with towers offers to be looked at, and what a text tower whose word vectors can be replaced does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from diptych.encoders.base import ImageEncoder, TextEncoder


@dataclass(frozen=True, slots=True)
class Reads:
    """What a system reads of its towers' outputs; what it does not read need not be kept.

    Args:
        grid: the places of a picture, or else its summary alone.
        words: every word of a text, or else its summary alone.
        mirrored: the mirrored pictures too.
    """

    grid: bool = False
    words: bool = False
    mirrored: bool = False


class Sighted(ABC):
    """Has an image tower; reads `batch.image_states` where they are given."""

    image_tower: ImageEncoder

    @abstractmethod
    def reads(self) -> Reads:
        """Say what it reads of its towers' outputs."""


class Worded(ABC):
    """Has a text tower; reads `batch.text_states` where they are given."""

    text_tower: TextEncoder

    @abstractmethod
    def reads(self) -> Reads:
        """Say what it reads of its towers' outputs."""


class Towered(Sighted, Worded):
    """Has both towers."""


class Telling:
    """A system that learns to tell or guess words, so that it needs their numbers beside a frozen tower's outputs."""


class WordTable(ABC):
    """A text tower that turns token ids into vectors by one table, so that learnt vectors can stand in for words."""

    @abstractmethod
    def word_table(self) -> nn.Embedding:
        """Return the table of the word vectors; what is added to them (positions, kinds) comes after it."""
