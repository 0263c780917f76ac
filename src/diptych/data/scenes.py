"""Scenes: the built-in data, drawn from a seed as they are asked for, with captions, questions and the truth.

Every row is a function of the seed, its split and its number in the split alone: more training pictures leave the
others as they are, and any row can be had in any order and by any process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from jaxtyping import UInt8

from diptych.core.errors import UserError, unknown
from diptych.data.scene_captions import CAPTIONS, complete, write_captions
from diptych.data.scene_graph import COLOURS, INVERSE, STYLES, Scene, draw_scene
from diptych.data.scene_questions import questions
from diptych.data.scene_random import Dice, key
from diptych.data.scene_render import render
from diptych.data.scene_shapes import SHAPES
from diptych.data.source import SPLITS, Row, Source

CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""Every label a scene may have."""

_VERSION = 1
"""To be raised with any change of the pixels or words, so that caches know."""

_LAYOUT, _STYLE, _PIXELS, _CAPTIONS, _QUESTIONS = range(5)
_HELD_OUT = 500
_ATTEMPTS = 100
_KEPT_ROWS, _KEPT_BYTES = 50_000, 256 * 2**20  # what is kept for the next epoch: rows, and bytes of pictures
_MOST_OBJECTS = 4
_LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}


class Scenes(Source):
    """Pictures of one to four objects; a tenth of them, 500 at most, are held out as dev and as many as test.

    Args:
        pictures: how many in all, the three splits together.
        seed: another seed gives other scenes.
        size: side of the pictures in pixels; the scenes do not depend on it.
        language: of the captions and questions: "en", "zh" or "both" (then the English ones come first).
        objects: how many objects a picture has, from and to, within 1 to 4.
        styles: how the pictures are drawn, each picture in one of these.
        captions: how many captions a picture has in each language, 1 to 5; the first tells all that there is.
        distinct: make sure that within dev and within test no two pictures have first captions that say the same.

    Raises:
        UserError: for a value out of its range, or when there are not so many distinct captions.
    """

    def __init__(
        self,
        *,
        pictures: int = 20_000,
        seed: int = 0,
        size: int = 64,
        language: str = "en",
        objects: tuple[int, int] = (1, 4),
        styles: Sequence[str] = ("flat",),
        captions: int = CAPTIONS,
        distinct: bool = True,
    ) -> None:
        _within("pictures", pictures, 1, 10**9)
        _within("seed", seed, 0, 2**63 - 1)
        _within("size", size, 16, 2048)
        _within("captions", captions, 1, CAPTIONS)
        if language not in _LANGUAGES:
            raise unknown("language", language, _LANGUAGES)
        low, high = objects
        if not 1 <= low <= high <= _MOST_OBJECTS:
            raise UserError(f"objects={low}-{high} is not a range within 1-{_MOST_OBJECTS}; give for example 2-3")
        if not styles:
            raise UserError(f"styles is empty; give one or more of {', '.join(STYLES)}")
        for style in styles:
            if style not in STYLES:
                raise unknown("style", style, STYLES)
        self.seed, self.size, self.language, self.distinct = seed, size, language, distinct
        self.objects, self.styles, self.captions = (low, high), tuple(styles), captions
        held_out = min(_HELD_OUT, pictures // 10)
        self.counts = (pictures - 2 * held_out, held_out, held_out)
        self.problems = []
        self._rows: dict[int, Row] = {}
        self._pictures: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        self._attempts = [self._distinct(split) if distinct else [0] * held_out for split in (1, 2)]
        spoken = _LANGUAGES[language]
        self.name = (
            f"built-in scenes: {pictures:,} pictures of {size} px, {captions * len(spoken) * pictures:,} captions "
            f"({' and '.join(spoken)}), {low}-{high} objects, {', '.join(self.styles)}, seed {seed}"
        )

    def __len__(self) -> int:
        return sum(self.counts)

    def scene(self, index: int) -> Scene:
        """Return the scene of a row: its objects with their places, and its style."""
        return self._scene(*self._where(index))

    def row(self, index: int) -> Row:
        """Return captions, and as fields: objects, relations, label, style and questions; boxes are in pixels."""
        found = self._rows.get(index)
        if found is None:
            found = self._write(index)
            if len(self._rows) < _KEPT_ROWS:
                self._rows[index] = found
        return found

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Draw the picture; do not write to it, it is kept for the next time."""
        found = self._pictures.get(index)
        if found is None:
            found = self._draw(index)
            if len(self._pictures) * found.nbytes < _KEPT_BYTES:
                self._pictures[index] = found
        return found

    def _write(self, index: int) -> Row:
        split, number = self._where(index)
        scene = self._scene(split, number)
        written: list[str] = []
        asked: list[dict[str, str]] = []
        for language in _LANGUAGES[self.language]:
            told = write_captions(scene, language=language, stream=self._stream(split, number, _CAPTIONS))
            written += told[: self.captions]
            asked += questions(scene, language=language, stream=self._stream(split, number, _QUESTIONS))
        name = SPLITS[split]
        fields = {**scene.facts(self.size), "questions": asked}
        return Row(f"{name}-{number:06d}", tuple(written), name, fields)

    def _draw(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        split, number = self._where(index)
        return render(self._scene(split, number), self.size, stream=self._stream(split, number, _PIXELS))

    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the place in `SPLITS` of each row's split: train first, then dev, then test."""
        return np.repeat(np.arange(3, dtype=np.uint8), self.counts)

    def fingerprint(self) -> str:
        """Return a hash of the version and all options."""
        options = (_VERSION, self.counts, self.seed, self.size, self.language, self.objects, self.styles)
        return hashlib.sha256(repr((*options, self.captions, self.distinct)).encode()).hexdigest()

    def _where(self, index: int) -> tuple[int, int]:
        number = index if index >= 0 else len(self) + index
        for split, count in enumerate(self.counts):
            if 0 <= number < count:
                return split, number
            number -= count
        raise IndexError(f"scene {index} of {len(self)}")

    def _stream(self, split: int, number: int, use: int) -> int:
        return key(self.seed, split, number, use, self._attempts[split - 1][number] if split else 0)

    def _scene(self, split: int, number: int) -> Scene:
        style = self.styles[0]
        if len(self.styles) > 1:
            style = Dice(key(self.seed, split, number, _STYLE)).pick(self.styles)
        return draw_scene(Dice(self._stream(split, number, _LAYOUT)), objects=self.objects, style=style)

    def _distinct(self, split: int) -> list[int]:
        """Choose for each row the first attempt whose complete caption says what none before it said."""
        count = self.counts[split]
        chosen: list[int] = []
        said: set[object] = set()
        for number in range(count):
            for attempt in range(_ATTEMPTS):
                scene = draw_scene(Dice(key(self.seed, split, number, _LAYOUT, attempt)), objects=self.objects)
                saying = _saying(scene, key(self.seed, split, number, _CAPTIONS, attempt))
                if saying not in said:
                    break
            else:
                raise UserError(
                    f"with {'-'.join(map(str, self.objects))} objects only {number} of {count} {SPLITS[split]} "
                    "pictures got captions of their own; ask for fewer pictures, more objects or distinct=no"
                )
            said.add(saying)
            chosen.append(attempt)
        return chosen


def _saying(scene: Scene, stream: int) -> object:
    """Return what the complete caption says, whichever of two objects it speaks of first."""
    kinds = {thing: (thing.size, thing.colour, thing.shape) for thing in scene.objects}
    links = complete(scene, stream=stream)
    if not links:
        return frozenset(kinds.values()), scene.objects[0].place
    both = {(kinds[one], name, kinds[other]) for one, name, other in links}
    return frozenset(kinds.values()), frozenset(both | {(b, INVERSE[name], a) for a, name, b in both})


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"{name}={value} is out of range; scenes take {name} from {low} to {high}")


def open_scenes(text: str) -> Scenes:
    """Open the built-in data by its name.

    Args:
        text: `scenes`, `scenes:20000`, or with options of `Scenes` such as
            `scenes?pictures=20000&seed=1&language=zh&objects=2-3&styles=flat,night`; `styles=all` for every one.

    Raises:
        UserError: for an option that there is not (the nearest is suggested) or a value that cannot be read.
    """
    name, _, query = text.partition("?")
    name, _, count = name.partition(":")
    if name != "scenes":
        raise unknown("built-in data", name, ("scenes",))
    values: dict[str, Any] = {}
    if count:
        values["pictures"] = _whole("pictures", count)
    for option, value in parse_qsl(query, keep_blank_values=True):
        if option not in _READERS:
            raise unknown("option of scenes", option, _READERS)
        if option in values:
            raise UserError(f"{option} is given twice in {text!r}; give it once")
        values[option] = _READERS[option](option, value)
    return Scenes(**values)


def _whole(option: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"{option}={value!r} is not a whole number; give for example scenes?{option}=1000") from None


def _text(option: str, value: str) -> str:
    return value


def _range(option: str, value: str) -> tuple[int, int]:
    low, _, high = value.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise UserError(f"{option}={value!r} is not a range; give for example scenes?{option}=2-3") from None


def _list(option: str, value: str) -> tuple[str, ...]:
    return STYLES if value == "all" else tuple(part.strip() for part in value.split(",") if part.strip())


def _yes_or_no(option: str, value: str) -> bool:
    if value not in _SWITCH:
        raise unknown(f"value of {option}", value, _SWITCH)
    return _SWITCH[value]


_SWITCH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_READERS: dict[str, Callable[[str, str], Any]] = {
    "pictures": _whole,
    "seed": _whole,
    "size": _whole,
    "language": _text,
    "objects": _range,
    "styles": _list,
    "captions": _whole,
    "distinct": _yes_or_no,
}
