"""Batch: what travels from the data to a model, aligned on the batch axis; True in a mask means real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from diptych.core.config import Config
from diptych.core.errors import UserError


@dataclass(frozen=True, slots=True)
class States:
    """What a tower makes of one side of a batch: token features, which of them are real, and one summary each.

    `tokens` may be empty (n = 0) where only the summary was kept, as in a cache of pooled features. They may come from
    another depth of the tower than the summary and have a width of their own.
    """

    tokens: Float[Tensor, "b n w"]
    mask: Bool[Tensor, "b n"]
    summary: Float[Tensor, "b d"]

    def map(self, change: Callable[[Tensor], Tensor]) -> States:
        """Apply `change` to each tensor."""
        return States(change(self.tokens), change(self.mask), change(self.summary))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples; a field that the data does not have is None.

    `image` is uint8 in [0, 255] or float in [0, 1]; a tower normalises it itself. `pair_id` names the picture:
    rows that share it show the same picture, so their captions are positives of each other. The states stand in for
    pixels and tokens when the outputs of frozen towers were computed beforehand; `mirrored_states` are those of the
    mirrored pictures, a second view. `answer` is the place of the right answer among the spec's, -1 where it is none of
    them; `answer_scores`, in [0, 1], are what each of them would be worth; `question_id` numbers the questions about
    one picture. `negatives` are tokens drawn as noise for each row.
    """

    image: Shaped[Tensor, "b c h w"] | None = None
    tokens: Int[Tensor, "b t"] | None = None
    token_mask: Bool[Tensor, "b t"] | None = None
    image_states: States | None = None
    mirrored_states: States | None = None
    text_states: States | None = None
    regions: Float[Tensor, "b r d"] | None = None
    region_mask: Bool[Tensor, "b r"] | None = None
    label: Int[Tensor, " b"] | None = None
    domain: Int[Tensor, " b"] | None = None
    pair_id: Int[Tensor, " b"] | None = None
    answer: Int[Tensor, " b"] | None = None
    answer_scores: Float[Tensor, "b a"] | None = None
    question_id: Int[Tensor, " b"] | None = None
    negatives: Int[Tensor, "b k"] | None = None

    def __len__(self) -> int:
        """Count the examples."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                return len(value.summary) if isinstance(value, States) else len(value)
        return 0

    def need(self, name: str) -> Any:
        """Return a field that must be there.

        Raises:
            UserError: when the batch does not have it; the line says what it has.
        """
        value = getattr(self, name)
        if value is None:
            has = [field.name for field in fields(self) if getattr(self, field.name) is not None]
            raise UserError(f"this model needs {name!r}, but the data gives only {', '.join(has) or 'nothing'}")
        return value

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `change` to each tensor that is there."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, States):
                changed[field.name] = value.map(change)
            elif value is not None:
                changed[field.name] = change(value)
        return replace(self, **changed)

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting where the memory is pinned."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    def part(self, rows: slice | Int[Tensor, " k"]) -> Batch:
        """Take some of the rows."""
        return self.map(lambda value: value[rows])


class DataSpec(Config):
    """Facts about the data that a model is built for; saved beside its weights."""

    image_size: int = 64
    channels: int = 3
    vocabulary: int = 0
    context: int = 32
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    unk_id: int = 3
    classes: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
