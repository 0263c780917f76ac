"""What a scene is: a few objects with shape, colour, size and place, and the relations that hold between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diptych.data.scene_random import Dice
from diptych.data.scene_shapes import SHAPES, extent

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
STYLES = ("flat", "outline", "textured", "night", "noisy")
SIDE = 1000
"""The side of a scene in its own units: a scene is drawn in whole numbers, whatever the pixels."""

_GAP = 25
_RIM = 30
_NEAR, _FAR = 400, 600
_MAIN_RADIUS = {"small": (112, 122), "large": (178, 196)}
_RADIUS = {"small": (88, 102), "large": (148, 162)}
_TURN = 20
_TRIES = 60

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. Its centre, radius and box (left, top, right, bottom) are in thousandths of the picture's side."""

    shape: str
    colour: str
    size: str
    x: int
    y: int
    radius: int
    turn: int
    box: Box

    @property
    def place(self) -> str:
        """Say in which of nine parts of the picture the middle of the object lies."""
        column = _part(self.box[0] + self.box[2], "left", "right")
        row = _part(self.box[1] + self.box[3], "top", "bottom")
        return f"{row} {column}".strip() or "middle"


def _part(twice: int, low: str, high: str) -> str:
    return low if twice <= 2 * _NEAR else high if twice >= 2 * _FAR else ""


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects, the largest first (it gives the scene its label), and the style in which they are drawn."""

    objects: tuple[Thing, ...]
    style: str = "flat"

    @property
    def label(self) -> str:
        """Name the colour and shape of the main object, such as "red circle"."""
        return f"{self.objects[0].colour} {self.objects[0].shape}"

    def relations(self) -> list[tuple[int, str, int]]:
        """List every (object, relation, object) that holds: one box ends clearly before the other begins."""
        found = []
        for i, one in enumerate(self.objects):
            for j, other in enumerate(self.objects):
                if one.box[2] + _GAP <= other.box[0]:
                    found += [(i, "left of", j), (j, "right of", i)]
                if one.box[3] + _GAP <= other.box[1]:
                    found += [(i, "above", j), (j, "below", i)]
        return sorted(found)

    def facts(self, size: int = SIDE) -> dict[str, Any]:
        """Tell the whole scene in plain JSON values, with boxes in pixels of a picture of this size."""
        return {
            "objects": [
                {
                    "shape": thing.shape,
                    "colour": thing.colour,
                    "size": thing.size,
                    "place": thing.place,
                    "box": [round(edge * size / SIDE, 2) for edge in thing.box],
                }
                for thing in self.objects
            ],
            "relations": [list(relation) for relation in self.relations()],
            "label": self.label,
            "style": self.style,
        }


def draw_scene(dice: Dice, *, objects: tuple[int, int], style: str = "flat") -> Scene:
    """Draw a scene in which no two objects look the same and every two are apart, side by side or one over the other.

    Args:
        dice: where chance comes from.
        objects: how many objects, from and to, 1 to 4.
        style: one of `STYLES`.
    """
    kinds = _kinds(dice, dice.between(*objects))
    while True:
        things: list[Thing] = []
        for kind in kinds:
            thing = _placed(dice, kind, things)
            if thing is None:
                break
            things.append(thing)
        if len(things) == len(kinds):
            return Scene(tuple(things), style)


def _kinds(dice: Dice, count: int) -> list[tuple[str, str, str]]:
    """Draw shapes, colours and sizes, the large ones first; now and then one repeats, so that there is to count."""
    kinds: list[tuple[str, str, str]] = []
    while len(kinds) < count:
        shape = kinds[-1][0] if kinds and dice.chance(25) else dice.pick(SHAPES)
        colour = kinds[-1][1] if kinds and dice.chance(25) else dice.pick(COLOURS)
        kind = (shape, colour, dice.pick(SIZES))
        if kind not in kinds:
            kinds.append(kind)
    return sorted(kinds, key=lambda kind: kind[2])


def _placed(dice: Dice, kind: tuple[str, str, str], others: list[Thing]) -> Thing | None:
    shape, colour, size = kind
    radius = dice.between(*(_RADIUS if others else _MAIN_RADIUS)[size])
    turn = dice.between(-_TURN, _TURN)
    left, top, right, bottom = extent(shape, radius, turn)
    for _ in range(_TRIES):
        x = dice.between(_RIM - left, SIDE - _RIM - right)
        y = dice.between(_RIM - top, SIDE - _RIM - bottom)
        box = (x + left, y + top, x + right, y + bottom)
        if all(_apart(box, other.box) for other in others):
            return Thing(shape, colour, size, x, y, radius, turn, box)
    return None


def _apart(one: Box, other: Box) -> bool:
    across = max(one[0] - other[2], other[0] - one[2])
    down = max(one[1] - other[3], other[1] - one[3])
    return max(across, down) >= _GAP
