"""How far a rebuilt picture or text is from the true one, row by row; and translation there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diptych.core.runtime import mean_over_processes

X = TypeVar("X")
Y = TypeVar("Y")


def pixel_error(painted: Float[Tensor, "b p e"], patches: Float[Tensor, "b p e"]) -> Float[Tensor, " b"]:
    """Return the mean squared error of each picture, in squared units of the pixels."""
    return (painted - patches).square().flatten(1).mean(1)


def word_error(
    said: Float[Tensor, "b v"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, " b"]:
    """Return the cross-entropy of each text as a bag of words, summed over its words, in nats.

    Args:
        said: logits of the words that a text may have, whatever their order.
        tokens: the words that it has.
        mask: which tokens are real.
    """
    each = said.to(torch.promote_types(said.dtype, torch.float32)).log_softmax(1).gather(1, tokens)
    return -torch.where(mask, each, 0.0).sum(1)


def per_word(errors: Float[Tensor, " b"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Divide the sum of errors by the number of real tokens, both over every process."""
    return errors.sum() / mean_over_processes(mask.sum().to(errors.dtype)).clamp(min=1e-6)


def there_and_back(
    start: X, there: Callable[[X], Y], back: Callable[[Y], X], error: Callable[[X], Float[Tensor, " b"]]
) -> Float[Tensor, " b"]:
    """Translate, translate back and compare.

    Args:
        start: what is translated.
        there: into the other modality.
        back: into its own.
        error: how far what came back is from the start.

    Returns:
        The error of what came back; 0 when one way is the inverse of the other.

    Reference:
        Pham et al. 2018, arXiv 1812.07809 (MCTN).
    """
    return error(back(there(start)))
