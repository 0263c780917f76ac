import pytest
import torch

from diptych.metrics.explain import area_under, first_pixels, inside_share, points_into, ranked_above, step_by_step


def test_the_middle_of_the_hottest_pixel_counts():
    heat = torch.zeros(4, 6)
    heat[1, 4] = 1.0
    assert points_into(heat, (4, 1, 5, 2))
    assert points_into(heat, (4.5, 1.5, 5, 2))
    assert not points_into(heat, (4.6, 1, 5, 2))
    assert not points_into(heat, (1, 4, 2, 5))


def test_a_flat_map_points_nowhere():
    assert not points_into(torch.ones(3, 3), (0, 0, 3, 3))


def test_share_of_the_heat_in_a_box():
    heat = torch.zeros(4, 4)
    heat[0, 0], heat[3, 3] = 3.0, 1.0
    assert inside_share(heat, (0, 0, 2, 2)) == 0.75
    assert inside_share(torch.zeros(4, 4), (0, 0, 4, 4)) == 0.0


def test_deletion_ends_where_insertion_begins():
    image = torch.randint(0, 255, (3, 4, 4), dtype=torch.uint8)
    heat = torch.rand(4, 4)
    away, back = (step_by_step(image, heat, steps=4, insert=insert) for insert in (False, True))
    assert torch.equal(away[0], image)
    assert torch.equal(back[-1], image)
    assert torch.equal(away[-1], back[0])
    assert len(away) == 5


def test_the_hottest_pixel_goes_first():
    heat = torch.tensor([[0.1, 0.9], [0.5, 0.2]])
    first = first_pixels(heat, (0.25, 0.5))
    assert first[0].nonzero().tolist() == [[0, 1]]
    assert first[1].nonzero().tolist() == [[0, 1], [1, 0]]
    image = torch.tensor([[[9, 8], [7, 7]]], dtype=torch.uint8)
    assert step_by_step(image, heat, steps=4)[1].tolist() == [[[9, 7], [7, 7]]]


def test_area_under_a_line():
    assert area_under(torch.tensor([0.0, 0.5, 1.0])) == pytest.approx(0.5)
    assert area_under(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_how_often_what_is_wanted_comes_first():
    assert ranked_above(torch.tensor([0.9, 0.1, 0.5]), [True, False, False]) == 1.0
    assert ranked_above(torch.tensor([0.5, 0.5]), [True, False]) == 0.5
    assert ranked_above(torch.tensor([0.5, 0.5]), [True, True]) is None
