import pytest
import torch

from diptych.explain.steps import merging, over_grid
from diptych.nn.windows import WindowAttention


@pytest.mark.parametrize(
    ("side", "window", "shift"), [(4, 2, False), (4, 2, True), (5, 2, True), (5, 3, False), (3, 4, True)]
)
def test_a_matrix_over_the_grid_does_what_the_windows_do(side, window, shift):
    attention = WindowAttention(4, 1, side=side, window=window, shift=shift).double()
    x, kept = torch.randn(1, side, side, 4, dtype=torch.float64), []
    attention.watch = lambda weights: kept.append(weights) or weights
    with torch.no_grad():
        expected = attention(x).flatten(0, 2)
        whole = over_grid(attention, kept[0][0, :, 0])
        found = attention.out(whole @ attention.value(x.flatten(0, 2)))
    assert torch.allclose(found, expected, atol=1e-10)
    assert torch.allclose(whole.sum(1), torch.ones(side * side, dtype=torch.float64))


def test_merged_cells_are_means_of_those_they_were():
    matrix = merging(16, 4)
    assert matrix[1].view(4, 4).tolist() == [[0, 0, 0.25, 0.25], [0, 0, 0.25, 0.25], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert torch.allclose(merging(25, 9).sum(1), torch.ones(9))
