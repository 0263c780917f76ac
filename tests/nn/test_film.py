"""FiLM: a block by hand, what an unasking question leaves, blind questions and grids that it cannot read."""

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from diptych.nn.film import FiLM, FiLMBlock


def test_a_block_is_its_formula():
    torch.manual_seed(0)
    block, x, code = FiLMBlock(4, 3).double().eval(), torch.randn(2, 4, 3, 3).double(), torch.randn(2, 3).double()
    inside = F.relu(F.conv2d(x, block.enter.weight, block.enter.bias))
    y = F.conv2d(inside, block.conv.weight, padding=1) / (1 + block.norm.eps) ** 0.5
    gain, shift = (code @ block.steer.weight.T + block.steer.bias).split(4, dim=1)
    wanted = inside + F.relu(y * (1 + gain[..., None, None]) + shift[..., None, None])
    torch.testing.assert_close(block(x, code), wanted)


def test_the_question_decides_what_is_read():
    torch.manual_seed(0)
    film, cells = FiLM(6, blocks=2).eval(), torch.randn(1, 10, 6).expand(2, -1, -1)
    seen = torch.ones(2, 10, dtype=torch.bool)
    read = film(cells, seen, torch.randn(2, 6))
    assert read.shape == (2, 10, 6)
    assert not torch.allclose(read[0], read[1])
    same = film(cells, seen, torch.ones(2, 6))
    torch.testing.assert_close(same[0], same[1])


def test_the_first_cell_learns_the_most_of_any_place_and_places_learn_of_their_neighbours():
    torch.manual_seed(0)
    film, cells, question = FiLM(6, blocks=1).eval(), torch.randn(1, 26, 6), torch.randn(1, 6)
    seen = torch.ones(1, 26, dtype=torch.bool)
    read = film(cells, seen, question)
    torch.testing.assert_close(read[:, 0], cells[:, 0] + film.most(read[:, 1:].amax(1)))
    moved = cells.clone()
    moved[:, 1] += 1  # the corner
    apart = (film(moved, seen, question) - read).abs().amax(2)[0, 1:].view(5, 5) > 1e-6
    assert bool(apart[:2, :2].any())
    assert not bool(apart[2:].any() | apart[:, 2:].any())


def test_a_blind_question_is_steered_over_nothing():
    torch.manual_seed(0)
    film, question = FiLM(6, blocks=1).eval(), torch.randn(1, 6)
    blind = torch.zeros(1, 10, dtype=torch.bool)
    one, other = (film(torch.randn(1, 10, 6), blind, question)[:, 1:] for _ in range(2))
    torch.testing.assert_close(one, other)
    alone = torch.randn(1, 1, 6)
    assert film(alone, blind[:, :1], question) is alone


def test_cells_without_a_square_grid_are_refused():
    with pytest.raises(UserError, match="7 cells are no square grid"):
        FiLM(6, blocks=1)(torch.randn(1, 8, 6), torch.ones(1, 8, dtype=torch.bool), torch.randn(1, 6))
