"""Draws a scene as pixels, at any size, in one of five styles, with soft edges and the same bytes on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8

from diptych.data.scene_graph import SIDE, Scene, Thing
from diptych.data.scene_random import Dice, noise
from diptych.data.scene_shapes import Grid, distance, turned

Canvas = Float32[np.ndarray, "3 h w"]
Field = Float32[np.ndarray, "rows columns"]
Colour = Float32[np.ndarray, "3 ..."]

_PALETTE = {
    "red": (222, 56, 52),
    "orange": (246, 139, 36),
    "yellow": (250, 212, 52),
    "green": (62, 166, 78),
    "cyan": (52, 194, 208),
    "blue": (50, 96, 214),
    "purple": (134, 72, 184),
    "pink": (244, 142, 188),
}
_JITTER = 10
_PALE = ((250, 246, 238), (236, 243, 250), (240, 248, 240), (246, 240, 250), (252, 242, 240), (242, 242, 242))
_EARTH = ((214, 200, 176), (196, 204, 196), (206, 196, 200), (190, 200, 210), (220, 212, 200))
_PAPER = ((252, 251, 247), (248, 250, 252))
_DARK = ((20, 24, 52), (14, 30, 50), (34, 22, 52))


@dataclass(frozen=True, slots=True)
class _Patch:
    """The surroundings of one object: where they begin, how far each pixel is outside its edge, and its own axes."""

    left: int
    top: int
    outside: Field
    across: Field
    down: Field


def render(scene: Scene, size: int, *, stream: int) -> UInt8[np.ndarray, "size size 3"]:
    """Draw a scene.

    Args:
        scene: what to draw.
        size: side of the picture in pixels.
        stream: where chance comes from: tints, textures, stars, noise.

    Returns:
        RGB.
    """
    dice = Dice(stream)
    background, paint, margin = _STYLES[scene.style]
    canvas = background(size, dice)
    for thing in scene.objects:
        tint = np.array([channel + dice.between(-_JITTER, _JITTER) for channel in _PALETTE[thing.colour]], np.float32)
        paint(canvas, _patch(thing, size, margin=size * margin), tint[:, None, None], dice)
    if scene.style == "noisy":
        _grain(canvas, dice)
    np.clip(canvas, 0, 255, out=canvas)
    canvas += 0.5
    pixels = np.empty((size, size, 3), np.uint8)
    pixels.transpose(2, 0, 1)[...] = canvas
    return pixels


def _patch(thing: Thing, size: int, *, margin: float) -> _Patch:
    scale = size / SIDE
    left, top = (math.floor(edge * scale - margin) for edge in thing.box[:2])
    right, bottom = (math.ceil(edge * scale + margin) for edge in thing.box[2:])
    radius = thing.radius * scale
    x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - thing.x * scale)) * np.float32(1 / radius)
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - thing.y * scale)) * np.float32(1 / radius)
    cos, sin = turned(thing.turn)
    across = x * cos + (y * sin)[:, None]
    down = (y * cos)[:, None] - x * sin
    return _Patch(left, top, distance(thing.shape, across, down) * np.float32(radius), across, down)


def _ramp(value: Field) -> Field:
    """Cut to [0, 1]."""
    cut: Field = np.minimum(np.maximum(value, 0), 1)
    return cut


def _blend(canvas: Canvas, patch: _Patch, alpha: Field, colour: Colour, *, shift: tuple[int, int] = (0, 0)) -> None:
    """Lay a colour over the canvas where `alpha` is 1, as much of the patch as lies inside."""
    top, left = patch.top + shift[0], patch.left + shift[1]
    height, width = alpha.shape
    size = canvas.shape[-1]
    a, b = max(0, -top), min(height, size - top)
    c, d = max(0, -left), min(width, size - left)
    region = canvas[:, top + a : top + b, left + c : left + d]
    ink = colour if colour.shape[-1] == 1 else colour[:, a:b, c:d]
    region += (ink - region) * alpha[a:b, c:d]


def _column(colour: tuple[int, int, int]) -> Colour:
    return np.array(colour, np.float32)[:, None, None]


@lru_cache(maxsize=64)
def _steps(size: int) -> Grid:
    """Return 0 to 1 from the top to the bottom."""
    return np.arange(size, dtype=np.float32)[:, None] * np.float32(1 / size)


def _plain(size: int, dice: Dice) -> Canvas:
    canvas = np.empty((3, size, size), np.float32)
    canvas[...] = _column(dice.pick(_PALE)) - _steps(size) * 14
    return canvas


@lru_cache(maxsize=16)
def _ruling(size: int) -> Grid:
    """Return the lines of squared paper, 0 to 1."""
    place = np.arange(size, dtype=np.float32) * np.float32(10 / size)
    off = np.abs(place - np.floor(place + 0.5)) * np.float32(size / 10)
    line = np.clip(np.float32(max(1.0, size / 160)) - off, 0, 1)
    lines: Grid = np.maximum(line, line[:, None])
    return lines


def _squared_paper(size: int, dice: Dice) -> Canvas:
    canvas = np.empty((3, size, size), np.float32)
    canvas[...] = _column(dice.pick(_PAPER)) - _ruling(size) * _column((22, 15, 10))
    return canvas


@lru_cache(maxsize=64)
def _lattice(size: int, cells: int) -> tuple[Float32[np.ndarray, " size"], np.ndarray]:
    """Return for each pixel the cell it lies in and how far along, smoothed."""
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    cell = np.floor(place).astype(np.int64)
    along = place - np.floor(place)
    return along * along * (3 - 2 * along), cell


def _clouds(size: int, cells: tuple[int, int], dice: Dice) -> Grid:
    """Return smooth noise in [-1, 1] from random heights at the corners of so many cells down and across."""
    corners = noise(dice.word(), (cells[0] + 1) * (cells[1] + 1)).astype(np.float32) * np.float32(1 / 127.5) - 1
    corners = corners.reshape(cells[0] + 1, cells[1] + 1)
    along, cell = _lattice(size, cells[0])
    rows = corners[cell] + (corners[cell + 1] - corners[cell]) * along[:, None]
    along, cell = _lattice(size, cells[1])
    smooth: Grid = rows[:, cell] + (rows[:, cell + 1] - rows[:, cell]) * along
    return smooth


def _grained_wood(size: int, dice: Dice) -> Canvas:
    cells = (40, 4) if dice.chance(50) else (4, 40)
    shade = _clouds(size, cells, dice) * 16 + _clouds(size, (5, 5), dice) * 14
    canvas: Canvas = _column(dice.pick(_EARTH)) + shade
    return canvas


def _starry_sky(size: int, dice: Dice) -> Canvas:
    canvas = np.empty((3, size, size), np.float32)
    canvas[...] = _column(dice.pick(_DARK)) + _steps(size) * _column((16, 18, 34))
    place = noise(dice.word(), 90).astype(np.int64)
    y, x, light = (
        (place[0::3] * size) >> 8,
        (place[1::3] * size) >> 8,
        place[2::3].astype(np.float32) * np.float32(0.55),
    )
    for right in range(max(1, round(size / 128))):
        for below in range(max(1, round(size / 128))):
            canvas[:, np.minimum(y + below, size - 1), np.minimum(x + right, size - 1)] += light
    return canvas


def _solid(canvas: Canvas, patch: _Patch, tint: Colour, dice: Dice) -> None:
    """Fill with a little volume, over a soft shadow."""
    size = canvas.shape[-1]
    soft = np.float32(1 / (0.045 * size))
    shift = (max(1, round(size / 36)), max(1, round(size / 64)))
    _blend(canvas, patch, _ramp(0.5 - patch.outside * soft) * np.float32(0.24), _SHADOW, shift=shift)
    _blend(canvas, patch, _ramp(0.5 - patch.outside), tint - patch.down * 16)


def _drawn(canvas: Canvas, patch: _Patch, tint: Colour, dice: Dice) -> None:
    """Draw the edge with a felt pen and fill with a wash."""
    pen = np.float32(max(1.7, canvas.shape[-1] / 34))
    inside = 0.5 - patch.outside
    _blend(canvas, patch, _ramp(inside) * np.float32(0.2), tint)
    _blend(canvas, patch, np.minimum(_ramp(inside), _ramp(0.5 + patch.outside + pen)), tint - 14)


def _patterned(canvas: Canvas, patch: _Patch, tint: Colour, dice: Dice) -> None:
    """Fill with stripes, checks or dots of two tones."""
    kind, period = dice.below(3), np.float32(2.0 + 0.25 * dice.below(4))
    wave = np.abs(patch.across * period - np.floor(patch.across * period) - 0.5)
    if kind > 0:
        other = np.abs(patch.down * period - np.floor(patch.down * period) - 0.5)
        wave = np.maximum(wave, other) if kind == 1 else np.sqrt(wave * wave + other * other)
    tone = _ramp((wave - 0.27) * 8) * 52 - 40
    size = canvas.shape[-1]
    _blend(canvas, patch, _ramp(0.6 - patch.outside * np.float32(20 / size)) * np.float32(0.3), _SHADOW)
    _blend(canvas, patch, _ramp(0.5 - patch.outside), tint + tone)


def _shining(canvas: Canvas, patch: _Patch, tint: Colour, dice: Dice) -> None:
    """Fill brightly, in a halo."""
    halo = _ramp(1 - patch.outside * np.float32(9.2 / canvas.shape[-1]))
    _blend(canvas, patch, halo * halo * np.float32(0.36), tint)
    _blend(canvas, patch, _ramp(0.5 - patch.outside), tint + (18 - patch.down * 10))


def _flat(canvas: Canvas, patch: _Patch, tint: Colour, dice: Dice) -> None:
    _blend(canvas, patch, _ramp(0.5 - patch.outside), tint)


def _grain(canvas: Canvas, dice: Dice) -> None:
    """Wash the picture out and add noise, as a cheap camera does in poor light."""
    flat = noise(dice.word(), 2 * canvas.size).reshape(2, *canvas.shape).astype(np.float32)
    canvas *= np.float32(0.78)
    canvas += (flat[0] + flat[1]) * np.float32(0.28) - np.float32(0.28 * 255 - 18)


_SHADOW = _column((48, 46, 66))
_STYLES: dict[str, tuple[Callable[[int, Dice], Canvas], Callable[[Canvas, _Patch, Colour, Dice], None], float]] = {
    "flat": (_plain, _solid, 0.035),
    "outline": (_squared_paper, _drawn, 0.02),
    "textured": (_grained_wood, _patterned, 0.035),
    "night": (_starry_sky, _shining, 0.115),
    "noisy": (_plain, _flat, 0.02),
}
"""For each style how the background and an object are painted, and how far around an object that reaches, in sides."""
