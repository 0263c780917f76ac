"""Towered: what a system offers whose towers can be looked at, to cache a frozen one's outputs or save its assets."""

from __future__ import annotations

from abc import ABC, abstractmethod

from diptych.encoders.base import ImageEncoder, TextEncoder


class Towered(ABC):
    """Has an image tower and a text tower; reads `batch.image_states` and `batch.text_states` where they are given."""

    image_tower: ImageEncoder
    text_tower: TextEncoder

    @abstractmethod
    def reads_image_tokens(self) -> bool:
        """Say whether it reads the grid of a picture, or its summary alone, which is much less to keep."""

    @abstractmethod
    def reads_text_tokens(self) -> bool:
        """Say whether it reads every word of a text, or its summary alone."""
