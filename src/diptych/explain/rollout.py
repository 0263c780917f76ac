"""Attention rollout: whose information reached whom, when each layer passes on what its attention says.

Reference:
    Abnar & Zuidema 2020, arXiv 2005.00928. It does not know what is asked: for every text it gives the same map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Step:
    """One layer, as a matrix from the tokens that came in (k) to those that go out (q).

    Args:
        weights: of the tokens that came in, for each that goes out; attention with its heads averaged, or relevance.
        residual: whether each token was added to what it took from the others; then q = k.
    """

    weights: Float[Tensor, "q k"]
    residual: bool = True


def rollout(steps: Sequence[Step]) -> Float[Tensor, "q n"]:
    """Follow attention from the last layer back to the first tokens.

    Args:
        steps: from the first layer to the last; rows of each add up to one.

    Returns:
        Of each last token, the shares that it has from the first tokens: rows add up to one.

    Raises:
        UserError: without a single layer.
    """
    joined: Tensor | None = None
    for step in steps:
        weights = (step.weights + _self(step)) / 2 if step.residual else step.weights
        joined = weights if joined is None else weights @ joined  # a later layer stands on the left
    if joined is None:
        raise UserError("attention rollout needs at least one layer of attention")
    return joined


def _self(step: Step) -> Float[Tensor, "q q"]:
    return torch.eye(len(step.weights), dtype=step.weights.dtype, device=step.weights.device)
