"""Towered: what a system offers whose towers can be looked at, to cache a frozen one's outputs or save its assets."""

from __future__ import annotations

from abc import ABC

from diptych.encoders.base import ImageEncoder, TextEncoder


class Towered(ABC):
    """Has an image tower and a text tower; reads `batch.image_states` and `batch.text_states` where they are given."""

    image_tower: ImageEncoder
    text_tower: TextEncoder
