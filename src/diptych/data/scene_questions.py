"""Asks about a scene, in English or Chinese, and knows the answers."""

from __future__ import annotations

from collections.abc import Callable

from diptych.data.scene_graph import COLOURS, INVERSE, SIZES, Scene, Thing
from diptych.data.scene_random import Dice, key
from diptych.data.scene_shapes import SHAPES
from diptych.data.scene_speech import SPEECHES, Speech

KINDS = ("colour", "shape", "size", "count", "exists", "relation")
COUNTS = ("0", "1", "2", "3", "4")

_ASK = {
    "en": {
        "colour": "what colour is {0}?",
        "shape": "what shape is {0}?",
        "size": "is {0} large or small?",
        "count": "how many {0} are there?",
        "exists": "is there {0}?",
        "relation": "is {0} {2} {1}?",
    },
    "zh": {
        "colour": "{0}是什么颜色？",
        "shape": "{0}是什么形状？",
        "size": "{0}是大的还是小的？",
        "count": "图中有几个{0}？",
        "exists": "图中有{0}吗？",
        "relation": "{0}在{1}的{2}吗？",
    },
}
_YES_NO = {"en": ("yes", "no"), "zh": ("是", "否")}
_ZH_SIZES = {"small": "小", "large": "大"}

Asked = tuple[tuple[str, ...], str]
"""What is put into the question, and the answer."""


def answers(language: str) -> tuple[str, ...]:
    """List every answer there is: colours, shapes, sizes, counts, yes and no."""
    lexicon = SPEECHES[language].lexicon
    colours = tuple(lexicon.colours[colour][0] for colour in COLOURS)
    shapes = tuple(lexicon.shapes[shape][0] for shape in SHAPES)
    return (*colours, *shapes, *(_size(size, language) for size in SIZES), *COUNTS, *_YES_NO[language])


def questions(scene: Scene, *, language: str, stream: int) -> list[dict[str, str]]:
    """Ask one question of each kind that can be asked without ambiguity.

    Args:
        scene: what to ask about.
        language: "en" or "zh".
        stream: where chance comes from; both languages ask the same when it is the same.

    Returns:
        Mappings with "kind", "question", "answer" and "language". Yes and no are equally frequent.
    """
    asked = []
    say = SPEECHES[language](Dice(0), plain=True)
    for k, kind in enumerate(KINDS):
        found = _ASKERS[kind](scene, say, Dice(key(stream, k)), language)
        if found is not None:
            text = _ASK[language][kind].format(*found[0])
            asked.append({"kind": kind, "question": text, "answer": found[1], "language": language})
    return asked


def _size(size: str, language: str) -> str:
    return _ZH_SIZES[size] if language == "zh" else size


def _only(scene: Scene, *uses: str) -> list[tuple[Thing, str]]:
    """List each object that is the only one with its properties, with the first `use` for which it is."""
    found = []
    for thing in scene.objects:
        for use in uses:
            seen = [
                all(getattr(thing, name) == getattr(other, name) for name in use.split()) for other in scene.objects
            ]
            if sum(seen) == 1:
                found.append((thing, use))
                break
    return found


def _colour(scene: Scene, say: Speech, dice: Dice, language: str) -> Asked | None:
    targets = _only(scene, "shape", "size shape")
    if not targets:
        return None
    thing, use = dice.pick(targets)
    return (say.thing(thing, use, the=True),), say.lexicon.colours[thing.colour][0]


def _shape(scene: Scene, say: Speech, dice: Dice, language: str) -> Asked | None:
    targets = _only(scene, "colour", "size colour")
    if not targets:
        return None
    thing, use = dice.pick(targets)
    return (say.thing(thing, use, the=True),), say.lexicon.shapes[thing.shape][0]


def _how_large(scene: Scene, say: Speech, dice: Dice, language: str) -> Asked | None:
    targets = _only(scene, "colour shape")
    if not targets:
        return None
    thing, use = dice.pick(targets)
    return (say.thing(thing, use, the=True),), _size(thing.size, language)


def _count(scene: Scene, say: Speech, dice: Dice, language: str) -> Asked:
    by = dice.below(5)
    if by == 0:
        return (say.many(),), str(len(scene.objects))
    like = dice.pick(scene.objects)
    if by < 3:
        shape = like.shape if dice.chance(80) else dice.pick(SHAPES)
        return (say.many(shape=shape),), str(sum(thing.shape == shape for thing in scene.objects))
    colour = like.colour if dice.chance(80) else dice.pick(COLOURS)
    return (say.many(colour=colour),), str(sum(thing.colour == colour for thing in scene.objects))


def _exists(scene: Scene, say: Speech, dice: Dice, language: str) -> Asked:
    like, there = dice.pick(scene.objects), dice.chance(50)
    colour, shape = like.colour, like.shape
    while not there and any((thing.colour, thing.shape) == (colour, shape) for thing in scene.objects):
        colour, shape = (dice.pick(COLOURS), like.shape) if dice.chance(50) else (like.colour, dice.pick(SHAPES))
    return (say.kind(size=None, colour=colour, shape=shape),), _YES_NO[language][not there]


def _relation(scene: Scene, say: Speech, dice: Dice, language: str) -> Asked | None:
    if len(scene.objects) < 2:
        return None
    use = dict(_only(scene, "colour shape", "size colour shape"))
    i, relation, j = dice.pick(scene.relations())
    one, other = scene.objects[i], scene.objects[j]
    holds = dice.chance(50)
    word = say.lexicon.relations[relation if holds else INVERSE[relation]][0]
    named = (say.thing(one, use[one], the=True), say.thing(other, use[other], the=True))
    return (*named, word), _YES_NO[language][not holds]


_ASKERS: dict[str, Callable[[Scene, Speech, Dice, str], Asked | None]] = {
    "colour": _colour,
    "shape": _shape,
    "size": _how_large,
    "count": _count,
    "exists": _exists,
    "relation": _relation,
}
