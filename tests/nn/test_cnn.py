"""The residual networks: sizes, start, and the published shape of RN50."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diptych.nn.cnn import BasicBlock, Bottleneck, ModifiedResNet, ResNet


@pytest.mark.parametrize("block", [BasicBlock(8, 8), Bottleneck(32, 8)])
def test_a_block_starts_as_the_identity(block: nn.Module):
    inside = 8 if isinstance(block, BasicBlock) else 32
    x = torch.rand(2, inside, 6, 6)
    torch.testing.assert_close(block(x), x, atol=0, rtol=0)


@pytest.mark.parametrize("network", [ResNet(width=8, blocks=(2, 1)), ModifiedResNet(1, width=8, blocks=(1, 2))])
def test_grid_and_gradients(network: ResNet | ModifiedResNet):
    channels = 3 if isinstance(network, ResNet) else 1
    grid = network(torch.randn(2, channels, 32, 48))
    assert grid.shape == (2, network.dim, 32 // network.shrink, 48 // network.shrink)
    grid.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_a_stride_is_an_average_not_a_skip():
    block = Bottleneck(4, 2, stride=2).eval()
    with torch.no_grad():
        x = torch.rand(1, 4, 4, 4)
        rolled = block(x.flip(2, 3)).flip(2, 3)
    torch.testing.assert_close(block.shortcut(x.flip(2, 3)).flip(2, 3), block.shortcut(x), atol=1e-6, rtol=0)
    assert rolled.shape == (1, 8, 2, 2)


def test_published_size():
    with torch.device("meta"):
        network = ModifiedResNet()
    # RN50 of CLIP: 38.3 M parameters in the image tower, 14.8 M of them in the attention pooling and its projection.
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_527_264
    assert network.dim == 2048
    assert network.shrink == 32
