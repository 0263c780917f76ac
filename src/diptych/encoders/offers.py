"""Towered: what a system offers whose towers can be looked at, to cache a frozen one's outputs or save its assets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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


class Towered(Sighted):
    """Has a text tower too; reads `batch.text_states` where they are given."""

    text_tower: TextEncoder
