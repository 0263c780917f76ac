"""How a text is written token by token, and what was written."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from diptych.core.config import Config


class Writing(Config):
    """How to choose the next token again and again; the likeliest text by beam search where nothing else is said."""

    beams: int = Field(default=5, ge=1, description="texts kept in mind at a time; 1 is greedy")
    nucleus: float | None = Field(
        default=None, gt=0, le=1, description="draw among the likeliest tokens of this mass instead; 1 draws from all"
    )
    temperature: float = Field(default=1.0, gt=0, description="of drawing: below 1 is bolder, above 1 more varied")
    count: int = Field(default=1, ge=1, description="texts for each picture, the best first")
    longest: int = Field(default=24, ge=1, description="tokens at most, the end mark included")
    shortest: int = Field(default=1, ge=1, description="tokens at least, the end mark included")
    length_power: float = Field(
        default=0.0, description="beams compete by log-probability / tokens^power: above 0 makes texts longer"
    )


@dataclass(frozen=True, slots=True)
class Written:
    """Some texts for each of some items, the best first; a place that no text fills has a score of minus infinity.

    Args:
        tokens: without the begin mark, with the end mark where one was written; padded on the right.
        mask: which tokens are real.
        log_prob: of each text under the model, in nats: the sum over its tokens.
        score: what the texts are ranked by.
    """

    tokens: Int[Tensor, "b k t"]
    mask: Bool[Tensor, "b k t"]
    log_prob: Float[Tensor, "b k"]
    score: Float[Tensor, "b k"]
