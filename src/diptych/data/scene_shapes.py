"""The shapes of the built-in scenes as signed distances: how far a point lies outside the edge, in radii.

Only sums, products and square roots, because those are rounded alike on every machine; sines and powers are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float32

Grid = Float32[np.ndarray, "h w"]


def turned(degrees: int) -> tuple[float, float]:
    """Return cosine and sine, cut to twelve bits so that every machine has the same."""
    angle = math.radians(degrees)
    return round(math.cos(angle) * 4096) / 4096, round(math.sin(angle) * 4096) / 4096


_HALF, _ROOT = 0.5, 0.8660254
_CIRCLE, _SQUARE, _TRIANGLE = 0.96, 0.86, 0.6
_RING = (0.72, 0.26)
_CROSS = (1.0, 0.34)
_STAR, _STAR_WAIST = 1.14, 0.56
_LOBE_X, _LOBE_Y, _LOBE, _TIP = 0.5, -0.34, 0.53, 1.02
_MOON, _BITE_X, _BITE_Y, _BITE = 1.0, 0.46, -0.06, 0.84


def _circle(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.sqrt(x * x + y * y) - _CIRCLE
    return edge


def _square(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.maximum(np.abs(x), np.abs(y)) - _SQUARE
    return edge


def _triangle(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.maximum(np.abs(x) * _ROOT - y * _HALF, y) - _TRIANGLE
    return edge


def _cross(x: Grid, y: Grid) -> Grid:
    x, y = np.abs(x), np.abs(y)
    arm, width = _CROSS
    edge: Grid = np.maximum(np.maximum(x, y) - arm, np.minimum(x, y) - width)
    return edge


def _star(x: Grid, y: Grid) -> Grid:
    """Fold the plane onto half a ray, whose edge is one straight line."""
    cos, sin = turned(36)
    x = np.abs(x)
    across = np.maximum(x * cos + y * sin, 0) * 2
    x, y = x - across * cos, y - across * sin
    across = np.maximum(y * sin - x * cos, 0) * 2
    x, y = np.abs(x + across * cos), y - across * sin
    run, rise = _STAR_WAIST * sin, _STAR - _STAR_WAIST * cos
    length = math.sqrt(run * run + rise * rise)
    return x * (rise / length) + (-y - _STAR) * (run / length)


def _heart(x: Grid, y: Grid) -> Grid:
    """Join two round lobes with the wedge between their tangents to the tip; inside, the notch is an edge too."""
    x = np.abs(x)
    far = math.sqrt(_LOBE_X**2 + (_TIP - _LOBE_Y) ** 2)
    along, off = _LOBE / far, math.sqrt(1 - (_LOBE / far) ** 2)
    ex, ey = -_LOBE_X / far, (_TIP - _LOBE_Y) / far
    nx, ny = along * ex + off * ey, along * ey - off * ex
    right, down = x - _LOBE_X, y - _LOBE_Y
    lobe = np.sqrt(right * right + down * down) - _LOBE
    tangent, past = right * nx + down * ny - _LOBE, down * nx - right * ny
    outside = np.minimum(lobe, np.maximum(tangent, np.maximum(-down, -past)))
    notch = math.sqrt(_LOBE**2 - _LOBE_X**2)
    under = (past > 0) & (down * _LOBE_X > right * notch)
    to_notch = -np.sqrt(x * x + (down + notch) * (down + notch))
    inside = np.maximum(np.maximum(tangent, to_notch), np.where(under, to_notch, lobe))
    edge: Grid = np.where(outside < 0, inside, outside)
    return edge


def _ring(x: Grid, y: Grid) -> Grid:
    middle, width = _RING
    edge: Grid = np.abs(np.sqrt(x * x + y * y) - middle) - width
    return edge


def _moon(x: Grid, y: Grid) -> Grid:
    right, down = x - _BITE_X, y - _BITE_Y
    edge: Grid = np.maximum(np.sqrt(x * x + y * y) - _MOON, _BITE - np.sqrt(right * right + down * down))
    return edge


_DISTANCES: dict[str, Callable[[Grid, Grid], Grid]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "moon": _moon,
}
SHAPES = tuple(_DISTANCES)


def distance(shape: str, x: Grid, y: Grid) -> Grid:
    """Return how far each point is from the edge of a shape of radius about 1, negative inside, y downwards."""
    return _DISTANCES[shape](x, y)


@cache
def _corners(shape: str) -> tuple[tuple[float, float, float], ...]:
    """List discs (x, y, radius) whose hull is the hull of the shape."""
    if shape in ("circle", "ring"):
        return ((0.0, 0.0, _CIRCLE if shape == "circle" else sum(_RING)),)
    if shape == "square":
        return tuple((x, y, 0.0) for x in (-_SQUARE, _SQUARE) for y in (-_SQUARE, _SQUARE))
    if shape == "triangle":
        wide = _TRIANGLE * 2 * _ROOT
        return ((0.0, -2 * _TRIANGLE, 0.0), (-wide, _TRIANGLE, 0.0), (wide, _TRIANGLE, 0.0))
    if shape == "cross":
        arm, width = _CROSS
        return tuple((a * x, b * y, 0.0) for x, y in ((arm, width), (width, arm)) for a in (-1, 1) for b in (-1, 1))
    if shape == "star":
        return tuple((_STAR * turned(turn)[0], _STAR * turned(turn)[1], 0.0) for turn in range(-90, 270, 72))
    if shape == "heart":
        return ((-_LOBE_X, _LOBE_Y, _LOBE), (_LOBE_X, _LOBE_Y, _LOBE), (0.0, _TIP, 0.0))
    rim = ((_MOON * turned(turn)[0], _MOON * turned(turn)[1]) for turn in range(0, 360, 4))
    left = [(x, y) for x, y in rim if (x - _BITE_X) ** 2 + (y - _BITE_Y) ** 2 >= _BITE**2]
    return tuple((x, y, 0.0) for x, y in (*left, *_horns()))


def _horns() -> list[tuple[float, float]]:
    """Return the two points where the rim of the moon meets the bite."""
    far = math.sqrt(_BITE_X**2 + _BITE_Y**2)
    along = (far**2 + _MOON**2 - _BITE**2) / (2 * far)
    off = math.sqrt(_MOON**2 - along**2)
    ex, ey = _BITE_X / far, _BITE_Y / far
    return [(along * ex - side * off * ey, along * ey + side * off * ex) for side in (-1, 1)]


@cache
def extent(shape: str, radius: int, turn: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a shape about its centre, in the unit of its radius, rounded outwards.

    Args:
        shape: one of `SHAPES`.
        radius: its radius.
        turn: how far it is turned clockwise, in degrees.
    """
    cos, sin = turned(turn)
    discs = [(x * cos - y * sin, x * sin + y * cos, r) for x, y, r in _corners(shape)]
    left = min(x - r for x, _, r in discs)
    top = min(y - r for _, y, r in discs)
    right = max(x + r for x, _, r in discs)
    bottom = max(y + r for _, y, r in discs)
    return (
        math.floor(left * radius),
        math.floor(top * radius),
        math.ceil(right * radius),
        math.ceil(bottom * radius),
    )
