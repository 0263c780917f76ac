"""Frozen convolution towers made ready for many pictures: norms go into the convolutions, nothing is padded in vain.

On a processor a batch norm, an activation into new memory and the padding of TensorFlow's kind, which copies its input
even where it adds nothing, cost more than MobileNet's convolutions themselves.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diptych.encoders.base import ImageEncoder

_CLOSE = 1e-3
"""Largest difference that is put down to rounding, as a share of the largest number."""
_LAYERS = {
    "transformers.models.mobilenet_v1.modeling_mobilenet_v1": ("MobileNetV1ConvLayer",),
    "transformers.models.mobilenet_v2.modeling_mobilenet_v2": ("MobileNetV2ConvLayer",),
    "transformers.models.resnet.modeling_resnet": ("ResNetConvLayer", "ResNetShortCut"),
}

Encoder = TypeVar("Encoder", bound=ImageEncoder)


class FoldedLayer(nn.Module):
    """A convolution, and what followed it, in one.

    Args:
        convolution: with the norm in its weights.
        activation: what follows, if anything.
        same: pad as TensorFlow does, so that the result has 1 / stride of the places; else as the convolution says.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None, *, same: bool) -> None:
        super().__init__()
        self.convolution, self.same = convolution, same
        self.activation = nn.ReLU6(inplace=True) if isinstance(activation, nn.ReLU6) else activation
        if isinstance(activation, nn.ReLU):
            self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e i j"]:
        """Convolve."""
        own = self.convolution
        padding = own.padding
        if self.same:
            more = [_missing(own, axis, x.shape[2 + axis]) for axis in (0, 1)]
            padding = tuple(missing // 2 for missing in more)
            if any(missing % 2 for missing in more):
                (top, bottom), (left, right) = ((missing // 2, missing - missing // 2) for missing in more)
                x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        y = F.conv2d(x, own.weight, own.bias, own.stride, padding, own.dilation, own.groups)
        return y if self.activation is None else self.activation(y)


def folded(tower: Encoder) -> Encoder:
    """Return a copy of a frozen tower with its norms folded; the tower itself where that cannot be done.

    Returns:
        What gives the same features but for rounding, which one picture is asked about.
    """
    names = [name for name, module in tower.named_modules() if _foldable(module)]
    if not names:
        return tower
    quick = deepcopy(tower).eval()
    for name in names:
        quick.set_submodule(name, _fold(quick.get_submodule(name)))
    weight = next(tower.parameters())
    side = tower.image_size
    picture = torch.linspace(0, 1, len(tower.mean) * side * side).view(1, -1, side, side).to(weight)
    with torch.no_grad():
        want, got = (one(picture) for one in (tower, quick))
    alike = all(
        bool((one - other).abs().max() <= _CLOSE * one.abs().max())
        for one, other in ((want.tokens, got.tokens), (want.summary, got.summary))
    )
    return quick if alike else tower


def _foldable(module: nn.Module) -> bool:
    return type(module).__name__ in _LAYERS.get(type(module).__module__, ())


def _fold(layer: Any) -> FoldedLayer:
    parts = dict(layer.named_children())
    convolution, norm, activation = (parts.get(name) for name in ("convolution", "normalization", "activation"))
    assert isinstance(convolution, nn.Conv2d)
    same = "MobileNet" in type(layer).__name__ and layer.config.tf_padding
    whole = fuse_conv_bn_eval(convolution, norm) if isinstance(norm, nn.BatchNorm2d) else convolution
    return FoldedLayer(whole, activation, same=same)


def _missing(convolution: nn.Conv2d, axis: int, places: int) -> int:
    """Return how many places TensorFlow adds to both sides of an axis; transformers scales them by the dilation."""
    kernel, stride = convolution.kernel_size[axis], convolution.stride[axis]
    rest = places % stride
    return max(kernel - (stride if rest == 0 else rest), 0) * convolution.dilation[axis]
