"""Relevance through attention: weights count as far as the value explained grows with them.

Reference:
    Chefer et al. 2021, arXiv 2103.15679. Rows are normalised with a small number below the line, where the released
    code divides 0 by 0; what one cross-attention adds is computed from the matrices as they were before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError
from diptych.explain.rollout import Step

_LEAST = 1e-12  # of a row's sum: rows that are all zero stay so


def positive(weights: Float[Tensor, "*h q k"], gradient: Float[Tensor, "*h q k"]) -> Float[Tensor, "q k"]:
    """Average what speaks for the value over the heads: (gradient * weights) where that is above zero."""
    product = (weights * gradient).clamp(min=0)
    return product.flatten(0, -3).mean(0)


def relevance(steps: Sequence[Step]) -> Float[Tensor, "q n"]:
    """Add up relevance from the first layer to the last.

    Args:
        steps: from the first layer to the last, weights as `positive` gives them.

    Returns:
        Relevance of the first tokens for each last one; the identity where no gradient speaks for the value.

    Raises:
        UserError: without a single layer.
    """
    joined: Tensor | None = None
    for step in steps:
        weights = step.weights
        if joined is None:
            joined = torch.eye(weights.shape[1], dtype=weights.dtype, device=weights.device)
        added = weights @ joined
        joined = joined + added if step.residual else added
    if joined is None:
        raise UserError("relevance through attention needs at least one layer of attention")
    return joined


@dataclass(frozen=True, slots=True)
class Both:
    """Relevance inside and across two sides that look at each other, s (as the text) and q (as the picture).

    Args:
        ss: of s for s; the identity at first.
        qq: of q for q; the identity at first.
        sq: of q for s; zero at first.
        qs: of s for q; zero at first.
    """

    ss: Float[Tensor, "s s"]
    qq: Float[Tensor, "q q"]
    sq: Float[Tensor, "s q"]
    qs: Float[Tensor, "q s"]

    @classmethod
    def begin(cls, s: int, q: int) -> Both:
        """Begin with tokens that are relevant for themselves alone."""
        return cls(torch.eye(s), torch.eye(q), torch.zeros(s, q), torch.zeros(q, s))

    def turned(self) -> Both:
        """Exchange the two sides."""
        return Both(self.qq, self.ss, self.qs, self.sq)

    def after_self(self, seen: Float[Tensor, "s s"]) -> Both:
        """Add what self-attention of s saw; for q's, turn twice."""
        return replace(self, ss=self.ss + seen @ self.ss, sq=self.sq + seen @ self.sq)

    def after_cross(self, s_saw: Float[Tensor, "s q"] | None = None, q_saw: Float[Tensor, "q s"] | None = None) -> Both:
        """Add what s saw of q, and what q saw of s in the same layer, both from the matrices as they are."""
        here = self if s_saw is None else self._looked(s_saw)
        there = self.turned() if q_saw is None else self.turned()._looked(q_saw)
        return Both(here.ss, there.ss, here.sq, there.sq)

    def _looked(self, saw: Float[Tensor, "s q"]) -> Both:
        added = _rows(self.ss).T @ saw @ _rows(self.qq)
        return replace(self, sq=self.sq + added, ss=self.ss + saw @ self.qs)


def _rows(joined: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Let what came from others add up to one in each row, beside the token itself."""
    own = torch.eye(len(joined), dtype=joined.dtype, device=joined.device)
    others = joined - own
    return others / others.sum(-1, keepdim=True).clamp(min=_LEAST) + own
