"""From the attention that a tower paid to matrices, from its first tokens to those that are read at its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError
from diptych.explain.passing import Pass
from diptych.explain.relevance import positive, relevance
from diptych.explain.rollout import Step, rollout
from diptych.explain.watching import Looked
from diptych.nn.windows import WindowAttention, cut_windows


def by_rollout(one: Pass, score: Float[Tensor, ""]) -> Float[Tensor, " n"]:
    """Return what share of each place or token reached what is read; the same for every score.

    Raises:
        UserError: where no attention could be seen.
    """
    steps = [_step(looked, looked.weights[0].detach().mean(-3)) for looked in _seen(one)]
    return _read(one, rollout(_merged(steps, one)), score)


def by_relevance(one: Pass, score: Float[Tensor, ""]) -> Float[Tensor, " n"]:
    """Return the relevance of each place or token for the score.

    Raises:
        UserError: where no attention could be seen.
    """
    seen = _seen(one)
    gradients = torch.autograd.grad(
        score, [looked.weights for looked in seen], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    steps = []
    for looked, gradient in zip(seen, gradients, strict=True):
        weights = looked.weights[0].detach()
        if looked.windows is None:
            matrix = positive(weights, gradient[0])
        else:
            matrix = torch.stack([positive(*each) for each in zip(weights, gradient[0], strict=True)])
        steps.append(_step(looked, matrix))
    return _read(one, relevance(_merged(steps, one)), score)


def _seen(one: Pass) -> list[Looked]:
    if not one.record.readable():
        side = "image" if one.words is None else "text"
        raise UserError(
            f"the {side} tower has no attention that can be read: method=gradcam and method=occlusion explain it"
        )
    return one.record.attention


def _step(looked: Looked, matrix: Float[Tensor, "*n q k"]) -> Step:
    return Step(matrix if looked.windows is None else over_grid(looked.windows, matrix), residual=looked.among_itself)


def _merged(steps: Sequence[Step], one: Pass) -> list[Step]:
    """Put a step between layers where a grid was merged to a smaller one."""
    joined: list[Step] = []
    for looked, step in zip(one.record.attention, steps, strict=True):
        cells = step.weights.shape[1]
        if joined and looked.windows is not None and len(joined[-1].weights) != cells:
            joined.append(Step(merging(len(joined[-1].weights), cells).to(step.weights), residual=False))
        joined.append(step)
    return joined


def over_grid(windows: WindowAttention, inside: Float[Tensor, "w t t"]) -> Float[Tensor, "n n"]:
    """Write what the cells of each window saw of each other as one matrix over the cells of the grid, row by row."""
    side, padded = windows.side, windows.side + windows.padding
    place = torch.full((padded, padded), -1)
    place[:side, :side] = torch.arange(side * side).view(side, side)
    if windows.shift:
        place = place.roll((-windows.shift, -windows.shift), dims=(0, 1))
    whole = torch.zeros(side * side, side * side, dtype=inside.dtype)
    for cells, matrix in zip(cut_windows(place[None], windows.window)[0], inside.cpu(), strict=True):
        real = cells >= 0
        whole[cells[real][:, None], cells[real][None, :]] = matrix[real][:, real]
    return whole.to(inside.device)


def merging(before: int, after: int) -> Float[Tensor, "a b"]:
    """Return the matrix by which each cell of a grid of half the side is the mean of the cells it was merged from."""
    side, half = round(before**0.5), round(after**0.5)
    row = torch.arange(side) // 2
    cell = (row[:, None] * half + row[None, :]).flatten()
    matrix = torch.nn.functional.one_hot(cell, after).T.float()
    return matrix / matrix.sum(1, keepdim=True)


def _read(one: Pass, joined: Float[Tensor, "q n"], score: Float[Tensor, ""]) -> Float[Tensor, " p"]:
    """Take the rows of the last tokens that the rest of the model reads: a class token, the last word, or all.

    They are those with a gradient. A class token's own column is left out, as is the mean beside a grid.
    """
    rows = joined
    if len(joined) > 1:
        (gradient,) = torch.autograd.grad(score, one.record.blocks[-1], retain_graph=True, materialize_grads=True)
        rows = joined[(gradient.reshape(-1, gradient.shape[-1]) != 0).any(1)]
    row = rows.sum(0) / max(1, len(rows))
    if one.words is not None:
        return row[: one.states.tokens.shape[1]]
    if one.record.attention[0].windows is not None:
        return row
    return row[len(row) - one.states.tokens.shape[1] :]
