"""What the systems that learn from one side alone share: which side it is."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field

from diptych.encoders.towers import TowerConfig

Modality: TypeAlias = Literal["image", "text"]


class AloneConfig(TowerConfig):
    """One tower of the two; the settings of the other one are idle."""

    learns: ClassVar[str] = "alone"

    image_pool: str = Field(default="mean", description="class or mean; patches are what is learnt, so their mean")
    text_pool: str = Field(default="mean", description="mean: each word sees those after it, too")
    modality: Modality = Field(default="image", description="image: pictures alone; text: captions")


class OneSided(ABC):
    """Learns from pictures alone, or from texts alone.

    Attributes:
        modality: which of the two.
    """

    modality: Modality
