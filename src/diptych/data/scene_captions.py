"""Writes captions that are true of a scene: the first tells all that there is, the last ones tell less."""

from __future__ import annotations

from collections import Counter

from diptych.data.scene_graph import Scene, Thing
from diptych.data.scene_random import Dice, key
from diptych.data.scene_speech import SPEECHES, Speech

CAPTIONS = 5
"""How many captions a picture has in each language."""

Link = tuple[Thing, str, Thing]
_ALL, _SOME = "size colour shape", "colour shape"


def write_captions(scene: Scene, *, language: str, stream: int) -> tuple[str, ...]:
    """Write the captions of a scene.

    Args:
        scene: what to describe.
        language: "en" or "zh".
        stream: where chance comes from; both languages say the same when it is the same.

    Returns:
        The complete one in the usual words, one as complete in others, a list of the objects, a relation, and last a
        count or a place.
    """
    outline = complete(scene, stream=stream)
    dice = Dice(key(stream, 1))
    words = Dice(key(stream, 2, len(language), ord(language[0])))
    plain, free = SPEECHES[language](words, plain=True), SPEECHES[language](words)
    again = complete(scene, stream=dice.word())
    kinds = (_listed, _related, _counted if dice.chance(50) else _placed)
    told = _completely(scene, outline, plain), _completely(scene, again, free)
    return (*told, *(write(scene, free, dice) for write in kinds))


def complete(scene: Scene, *, stream: int) -> tuple[Link, ...]:
    """Choose the relations that the first caption tells: one object none, two one, three and four two."""
    dice = Dice(key(stream, 0))
    things = dice.shuffled(scene.objects)
    if len(things) == 3:
        first = _link(scene, things[0], things[1], dice)
        return first, _link(scene, things[0], things[2], dice, avoid=first[1])
    return tuple(_link(scene, things[i], things[i + 1], dice) for i in range(0, len(things) - 1, 2))


def _link(scene: Scene, one: Thing, other: Thing, dice: Dice, *, avoid: str | None = None) -> Link:
    """Choose a relation that holds between two objects, another than `avoid` where there is one."""
    i, j = scene.objects.index(one), scene.objects.index(other)
    names = [name for a, name, b in scene.relations() if (a, b) == (i, j)]
    return one, dice.pick([name for name in names if name != avoid] or names), other


def _completely(scene: Scene, outline: tuple[Link, ...], say: Speech) -> str:
    if not outline:
        only = scene.objects[0]
        return say.placed(say.thing(only, _ALL), only.place)
    named = [(say.thing(one, _ALL), relation, say.thing(other, _ALL)) for one, relation, other in outline]
    if len(scene.objects) == 3:
        return say.related(named[0][0], [(relation, other) for _, relation, other in named])
    return say.clauses([say.related(one, [(relation, other)]) for one, relation, other in named])


def _listed(scene: Scene, say: Speech, dice: Dice) -> str:
    use = _ALL if dice.chance(40) else _SOME
    return say.shows(say.join([say.thing(thing, use) for thing in dice.shuffled(scene.objects)]))


def _related(scene: Scene, say: Speech, dice: Dice) -> str:
    use = dice.pick((_ALL, _SOME, _SOME, "size shape"))
    if len(scene.objects) == 1:
        return say.shows(say.thing(scene.objects[0], _ALL))
    i, relation, j = dice.pick(scene.relations())
    one, other, wording = scene.objects[i], scene.objects[j], dice.below(3)
    if wording == 0:
        return say.related_backwards(say.thing(one, use), relation, say.thing(other, use, the=True))
    the = wording == 1
    return say.related(say.thing(one, use, the=the), [(relation, say.thing(other, use, the=the))])


def _counted(scene: Scene, say: Speech, dice: Dice) -> str:
    if len(scene.objects) == 1:
        return say.summed(1, say.thing(scene.objects[0], _SOME))
    by_shape = dice.chance(50)
    counts = Counter(thing.shape if by_shape else thing.colour for thing in scene.objects)
    groups = []
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        shape, colour = (name, None) if by_shape else (None, name)
        if count > 1:
            groups.append(say.several(count, colour=colour, shape=shape))
        else:
            groups.append(say.kind(size=None, colour=colour, shape=shape))
    if dice.chance(50):
        return say.summed(len(scene.objects), say.join(groups))
    return say.join(groups)


def _placed(scene: Scene, say: Speech, dice: Dice) -> str:
    things = dice.shuffled(scene.objects)[:2]
    return say.clauses([say.placed(say.thing(thing, _SOME), thing.place) for thing in things])
