import pytest
import torch
from torch import nn

from diptych.explain.gradcam import cells_for, grad_cam, place_cam


def network():
    """A network of a global mean and a linear map, in float64."""
    torch.manual_seed(1)
    features = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    return features, torch.randn(5, dtype=torch.float64)


@pytest.mark.parametrize("cam", [grad_cam, place_cam])
def test_behind_a_global_mean_the_map_is_the_class_activation_map(cam):
    features, weight = network()
    (gradient,) = torch.autograd.grad(features.mean(0) @ weight, features)
    expected = (features.detach() @ weight).clamp(min=0) / 9
    assert torch.allclose(cam(features.detach(), gradient), expected, atol=1e-10, rtol=0)


def test_a_value_twice_as_large_gives_a_map_twice_as_large():
    features, weight = network()
    (once,) = torch.autograd.grad(features.tanh().mean(0) @ weight, features)
    (twice,) = torch.autograd.grad(2 * features.tanh().mean(0) @ weight, features)
    assert torch.equal(2 * grad_cam(features.detach(), once), grad_cam(features.detach(), twice))


@pytest.mark.parametrize("cam", [grad_cam, place_cam])
def test_evidence_against_alone_gives_zeros(cam):
    features = torch.rand(9, 5) + 0.1
    assert torch.equal(cam(features, -torch.rand(9, 5)), torch.zeros(9))


def test_the_two_kinds_differ_where_places_are_treated_differently():
    features = torch.ones(2, 1)
    gradient = torch.tensor([[2.0], [0.0]])
    assert grad_cam(features, gradient).tolist() == [1.0, 1.0]
    assert place_cam(features, gradient).tolist() == [2.0, 0.0]


def test_each_of_several_values_has_its_own_map_of_the_cells():
    cells = torch.rand(1, 4, 3)
    frozen = nn.Linear(3, 1).requires_grad_(False)

    def values(seen):
        return torch.stack([frozen(seen[0, 1]).sum(), frozen(seen[0, 3]).sum(), torch.zeros(())])

    maps = cells_for(values, cells)
    assert maps.shape == (3, 1, 4)
    assert maps[0, 0].nonzero().flatten().tolist() in ([1], [])
    assert torch.allclose(maps[0, 0, 1], (cells[0, 1] @ frozen.weight[0]).clamp(min=0))
    assert torch.allclose(maps[1, 0, 3], (cells[0, 3] @ frozen.weight[0]).clamp(min=0))
    assert not maps[2].any()


def test_maps_of_cells_come_out_of_a_pass_without_gradient_too():
    with torch.no_grad():
        maps = cells_for(lambda seen: seen.sum(2)[:, 0], torch.ones(1, 2, 3))
    assert maps.tolist() == [[[3.0, 0.0]]]
