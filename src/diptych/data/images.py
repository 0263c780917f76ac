"""From a picture to square RGB pixels: squashed, cropped in the middle or at random, resized as Pillow does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from diptych.core.errors import UserError, unknown
from diptych.data.formats import MAX_PIXELS, Picture, open_picture
from diptych.data.formats import BadPicture as BadPicture

CROPS = ("squash", "center", "random")
RANDOM_AREA = (0.6, 1.0)  # of the picture; captions speak of the whole, so a crop keeps most of it
RANDOM_ASPECT = (3 / 4, 4 / 3)
# A JPEG may be decoded at n/8 of its size. Up to 4/8 that is faster than the whole, from 5/8 on slower; with at least
# 1.4 times the pixels asked for, the result stays within about one grey level of the whole picture's on photographs.
MARGIN = 1.4
LONGEST_ASPECT = 4.0


@dataclass(frozen=True, slots=True)
class _Box:
    """A part of a picture in its own pixels."""

    top: float
    left: float
    height: float
    width: float


def decode(
    picture: Picture,
    *,
    size: int,
    crop: str = "squash",
    rng: np.random.Generator | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[Tensor, "3 s s"]:
    """Return a picture as square RGB pixels in [0, 255], upright, transparency on white.

    Args:
        picture: the bytes of a file, its path, a PIL image, or an array (h w, h w 3 or h w 4) of bytes.
        size: side of the result in pixels.
        crop: "squash" (the whole picture, proportions lost), "center" (the shorter side fills the square) or "random"
            (60 to 100 % of the area at a random place and aspect; never mirrored, since captions tell left from right).
        rng: what "random" draws from.
        max_pixels: a larger picture is refused before its pixels are decoded.

    Returns:
        Bicubic antialiased pixels, as Pillow resizes.

    Raises:
        BadPicture: for a file that is missing, empty, cut short, too large, or no picture.
        UserError: for an unknown crop.
    """
    if crop not in CROPS:
        raise unknown("crop", crop, CROPS)
    opened = open_picture(picture, max_pixels)
    if crop == "random":
        if rng is None:
            raise UserError("crop='random' needs a generator: decode(picture, size=..., crop='random', rng=...)")
        box = _random_box(opened.height, opened.width, rng)
    else:
        box = _whole(opened.height, opened.width, longest=LONGEST_ASPECT if crop == "center" else math.inf)
    eighths = _eighths(box, size) if opened.scalable else 8
    pixels, scale = opened.load(eighths)
    height = width = size
    if crop == "center":
        shorter = min(box.height, box.width)
        height, width = int(size * box.height / shorter), int(size * box.width / shorter)
    resized = _resize(pixels, box, scale, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return resized[:, top : top + size, left : left + size]


def stack(pictures: Sequence[UInt8[Tensor, "c h w"]]) -> UInt8[Tensor, "b c h w"]:
    """Put pictures into one batch, channels side by side in memory as decoders leave them, which is quickest."""
    return torch.stack([picture.permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)


def size_of(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the upright height and width in pixels, from the header where the file has one.

    Raises:
        BadPicture: as `decode` does, as far as the header tells.
    """
    opened = open_picture(picture, max_pixels)
    return opened.height, opened.width


def _whole(height: int, width: int, *, longest: float) -> _Box:
    """Take the whole picture, cut in the middle to an aspect of at most `longest`: a strip must not fill the memory."""
    kept_height, kept_width = min(height, longest * width), min(width, longest * height)
    return _Box((height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width)


def _random_box(height: int, width: int, rng: np.random.Generator) -> _Box:
    area = height * width * rng.uniform(*RANDOM_AREA)
    aspect = math.exp(rng.uniform(math.log(RANDOM_ASPECT[0]), math.log(RANDOM_ASPECT[1])))
    box_height, box_width = min(height, math.sqrt(area / aspect)), min(width, math.sqrt(area * aspect))
    return _Box(
        rng.uniform(0, height - box_height), rng.uniform(0, width - box_width), max(box_height, 1), max(box_width, 1)
    )


def _eighths(box: _Box, size: int) -> int:
    for eighths in (1, 2, 3, 4):
        if min(box.height, box.width) * eighths / 8 >= MARGIN * size:
            return eighths
    return 8


def _resize(
    pixels: UInt8[np.ndarray, "h w 3"], box: _Box, scale: float, height: int, width: int
) -> UInt8[Tensor, "3 h2 w2"]:
    """Resize a part of a picture that was decoded at `scale`.

    A decoder rounds the scaled size up, so that its last row may be a fraction of one: the true, fractional size is
    what the resize is given (without that, the result is off by up to a pixel, several grey levels on fine detail).
    """
    rows, top, exact_height = _span(box.top, box.height, scale, pixels.shape[0])
    columns, left, exact_width = _span(box.left, box.width, scale, pixels.shape[1])
    cut = pixels[top : top + rows, left : left + columns]
    image = torch.from_numpy(np.require(cut, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    # a hair more than the ratio, so that the floor inside of interpolate never falls short of the size asked for
    factors = ((height + 1e-4) / exact_height, (width + 1e-4) / exact_width)
    resized = F.interpolate(image, scale_factor=factors, mode="bicubic", antialias=True, recompute_scale_factor=False)
    return resized[0, :, :height, :width]


def _span(start: float, length: float, scale: float, available: int) -> tuple[int, int, float]:
    """Return how many decoded rows a span covers, its first row, and how many it truly is."""
    count = min(math.ceil(length * scale), available)
    exact = length * scale if count == available else float(count)
    return count, min(round(start * scale), available - count), exact
