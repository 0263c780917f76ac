"""Residual convolution networks: a small plain one, and CLIP's with a three-layer stem and anti-aliased strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def conv_norm(inside: int, outside: int, size: int, *, stride: int = 1) -> nn.Sequential:
    """Make a convolution without bias that keeps the picture's size (but for the stride), and its BatchNorm."""
    conv = nn.Conv2d(inside, outside, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


def _start_as_identity(branch: nn.Sequential) -> None:
    """Let a residual branch begin at zero: its last BatchNorm has no gain yet."""
    norm = branch[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.zeros_(norm.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm(inside, outside, 3, stride=stride)
        self.second = conv_norm(outside, outside, 3)
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else conv_norm(inside, outside, 1, stride=stride)
        _start_as_identity(self.second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e i j"]:
        """Transform a grid."""
        branch = self.second(F.relu(self.first(x)))
        return F.relu(branch + self.shortcut(x))


class Bottleneck(nn.Module):
    """CLIP's block: 1x1, 3x3 and 1x1 convolutions; a stride is an average pool, in the branch and in the shortcut.

    Args:
        inside: channels that come in.
        width: channels of the 3x3 convolution; four times as many go out.
        stride: by how much the grid shrinks.
    """

    def __init__(self, inside: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.narrow = conv_norm(inside, width, 1)
        self.middle = conv_norm(width, width, 3)
        self.widen = conv_norm(width, 4 * width, 1)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        same = stride == 1 and inside == 4 * width
        self.shortcut = nn.Identity() if same else nn.Sequential(self.pool, *conv_norm(inside, 4 * width, 1))
        _start_as_identity(self.widen)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e i j"]:
        """Transform a grid."""
        branch = F.relu(self.middle(F.relu(self.narrow(x))))
        return F.relu(self.widen(self.pool(branch)) + self.shortcut(x))


def _stages(
    block: type[BasicBlock] | type[Bottleneck], inside: int, width: int, blocks: Sequence[int], *, expansion: int
) -> nn.ModuleList:
    """Make the stages: each but the first doubles the width and halves the grid."""
    stages = nn.ModuleList()
    for number, count in enumerate(blocks):
        channels = width * 2**number
        layers = []
        for index in range(count):
            layers.append(block(inside, channels, stride=2 if index == 0 and number > 0 else 1))
            inside = channels * expansion
        stages.append(nn.Sequential(*layers))
    return stages


class ResNet(nn.Module):
    """A plain residual network for small pictures: a 3x3 stem without pooling, then stages of basic blocks.

    Args:
        channels: of the picture.
        width: channels of the first stage; each further stage has twice as many on half the grid.
        blocks: how many blocks each stage has.
    """

    def __init__(self, channels: int = 3, *, width: int = 32, blocks: Sequence[int] = (1, 1, 1)) -> None:
        super().__init__()
        self.dim = width * 2 ** (len(blocks) - 1)
        self.shrink = 2 ** (len(blocks) - 1)
        self.stem = conv_norm(channels, width, 3)
        self.stages = _stages(BasicBlock, width, width, blocks, expansion=1)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return a grid `shrink` times smaller, with `dim` channels."""
        x = F.relu(self.stem(image))
        for stage in self.stages:
            x = stage(x)
        return x


class ModifiedResNet(nn.Module):
    """CLIP's convolution network, without its attention pooling.

    Args:
        channels: of the picture.
        width: channels of the stem; 64 in RN50.
        blocks: how many blocks each stage has; (3, 4, 6, 3) in RN50.

    Reference:
        Radford et al. 2021, arXiv 2103.00020, after ResNet-D (arXiv 1812.01187) and anti-aliased strides (1904.11486).
    """

    def __init__(self, channels: int = 3, *, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.dim = 4 * width * 2 ** (len(blocks) - 1)
        self.shrink = 4 * 2 ** (len(blocks) - 1)
        self.stem = nn.Sequential(
            conv_norm(channels, width // 2, 3, stride=2),
            nn.ReLU(),
            conv_norm(width // 2, width // 2, 3),
            nn.ReLU(),
            conv_norm(width // 2, width, 3),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        self.stages = _stages(Bottleneck, width, width, blocks, expansion=4)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return a grid `shrink` times smaller, with `dim` channels."""
        x: Tensor = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        return x
