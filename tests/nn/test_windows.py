"""Windows: what is cut comes together again, who may look at whom, and full attention where the grid is one window."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from diptych.core.errors import UserError
from diptych.nn.windows import WindowAttention, WindowBlock, cut_windows, join_windows, may_meet, relative_index


def test_windows_are_cut_row_by_row_and_joined_again():
    grid = torch.arange(24.0).view(1, 4, 6, 1)
    windows = cut_windows(grid, 2)
    assert windows.shape == (1, 6, 4, 1)
    assert windows[0, 1, :, 0].tolist() == [2, 3, 8, 9]
    assert windows[0, 3, :, 0].tolist() == [12, 13, 18, 19]
    assert torch.equal(join_windows(windows, height=4, width=6), grid)


@pytest.mark.parametrize(
    ("side", "window", "shift"), [(8, 4, 2), (6, 4, 2), (7, 4, 2), (7, 4, 0), (9, 3, 1), (5, 2, 1)]
)
def test_only_neighbours_of_the_picture_meet(side: int, window: int, shift: int):
    """By hand: cells meet when the window that was laid on the unrolled, endless plane holds both of them."""
    seen = may_meet(side, window, shift)
    padded = -(-side // window) * window
    rolled = torch.arange(padded * padded).view(padded, padded).roll((-shift, -shift), dims=(0, 1))
    cells = cut_windows(rolled[None], window)[0]
    assert seen.shape == (len(cells), window**2, window**2)
    for place, own in enumerate(cells.tolist()):
        for (i, one), (j, other) in itertools.product(enumerate(own), repeat=2):
            rows, columns = zip(divmod(one, padded), divmod(other, padded), strict=True)
            real = [max(cell) < side for cell in zip(rows, columns, strict=True)]
            same = all((a - shift) // window == (b - shift) // window for a, b in (rows, columns))
            wanted = same if all(real) else not any(real)
            assert bool(seen[place, i, j]) == wanted, (one, other)
    assert seen.diagonal(dim1=1, dim2=2).all(), "a cell always sees itself"


def test_nothing_is_hidden_without_shift_and_padding():
    assert may_meet(8, 4, 0) is None


def test_relative_positions_are_steps():
    index = relative_index(3, 3)
    for one, other in itertools.product(range(9), repeat=2):
        step = (one // 3 - other // 3, one % 3 - other % 3)
        assert index[one, other] == (step[0] + 2) * 5 + step[1] + 2
    assert torch.equal(relative_index(2, 3)[0], torch.tensor([12, 11, 7, 6])), "a smaller window reads the middle"


def by_hand(layer: WindowAttention, x: Tensor) -> Tensor:
    """Attend from each cell to those of its window, one cell and head at a time."""
    side, window, shift, width = layer.side, layer.window, layer.shift, x.shape[-1] // layer.heads
    table = (layer.bias_table.shape[0] ** 0.5 - 1) / 2 + 1
    rows = []
    for row, column in itertools.product(range(side), repeat=2):
        near = [
            (r, c)
            for r, c in itertools.product(range(side), repeat=2)
            if (r - shift) // window == (row - shift) // window and (c - shift) // window == (column - shift) // window
        ]
        parts = []
        for head in range(layer.heads):
            cut = slice(head * width, (head + 1) * width)
            query = layer.query(x[0, row, column])[cut]
            logits = torch.stack(
                [
                    query @ layer.key(x[0, r, c])[cut] / width**0.5
                    + layer.bias_table[int((row - r + table - 1) * (2 * table - 1) + column - c + table - 1), head]
                    for r, c in near
                ]
            )
            values = torch.stack([layer.value(x[0, r, c])[cut] for r, c in near])
            parts.append(logits.softmax(0) @ values)
        rows.append(layer.out(torch.cat(parts)))
    return torch.stack(rows).view(1, side, side, -1)


@pytest.mark.parametrize(
    ("side", "window", "shift"), [(4, 2, False), (4, 2, True), (5, 2, True), (5, 3, True), (3, 4, True), (4, 4, True)]
)
def test_attention_by_hand(side: int, window: int, shift: bool):
    layer = WindowAttention(6, 2, side=side, window=window, shift=shift).double()
    x = torch.randn(1, side, side, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), by_hand(layer, x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("window", [4, 5, 9])
def test_a_window_as_large_as_the_grid_is_full_attention(window: int):
    layer = WindowAttention(8, 2, side=4, window=window, shift=True).double()
    with torch.no_grad():
        layer.bias_table.zero_()
    x = torch.randn(3, 4, 4, 8, dtype=torch.float64)
    flat = x.flatten(1, 2)
    query, key, value = (
        linear(flat).unflatten(-1, (2, 4)).transpose(1, 2) for linear in (layer.query, layer.key, layer.value)
    )
    full = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    wanted = layer.out(full.transpose(1, 2).flatten(2)).view(3, 4, 4, 8)
    torch.testing.assert_close(layer(x), wanted, atol=1e-12, rtol=0)


def test_a_change_reaches_its_window_alone():
    block = WindowBlock(WindowAttention(8, 2, side=8, window=4, shift=True)).eval()
    x = torch.randn(1, 8, 8, 8)
    other = x.clone()
    other[0, 0, 0] += 1.0
    changed = (block(x) != block(other)).any(-1)[0].nonzero().tolist()
    assert changed == [[0, 0], [0, 1], [1, 0], [1, 1]], "the corner's window is cut off by the rim, not rolled over"


def test_heads_divide_the_width():
    with pytest.raises(UserError, match="multiple of the heads, got dim=6 and heads=4"):
        WindowAttention(6, 4, side=4, window=2)
