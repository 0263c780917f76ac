"""Reads a caption of a scene back, English or Chinese, and says whether it is true: the oracle of captioning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from diptych.data.scene_graph import Scene
from diptych.data.scene_words import LEXICONS, language_of

_THE = frozenset({"the"})


@dataclass(slots=True)
class Mention:
    """Something a caption speaks of. `count` is None for "a" (one, or more), a number for exactly so many."""

    properties: dict[str, str] = field(default_factory=dict)
    count: int | None = None
    definite: bool = False

    @property
    def new(self) -> bool:
        """Whether it is something not mentioned before: "a star", not "the star" or "one star: ..."."""
        return self.count is None and not self.definite

    def fits(self, thing: Mapping[str, Any]) -> bool:
        """Whether an object has all the properties."""
        return all(thing[name] == value for name, value in self.properties.items())


@dataclass(slots=True)
class Meaning:
    """All that a caption says: what there is, how it stands to each other, and where in the picture."""

    mentions: list[Mention] = field(default_factory=list)
    relations: list[tuple[int, str, int]] = field(default_factory=list)
    places: list[tuple[int, str]] = field(default_factory=list)


def truth(caption: str, scene: Scene | Mapping[str, Any]) -> bool:
    """Say whether a caption is true of a scene.

    "A star" is true where there is a star, whatever else there is; "two stars" only where there are exactly two.
    Things mentioned separately ("a star and a red star") are different objects, but what is called "the" may be one
    that was mentioned before. "Left of" means that the whole object is left of the other's left edge.

    Args:
        caption: in English or Chinese; capitals and the final stop do not matter.
        scene: the scene, or its facts: a mapping with "objects" and "relations", such as a row's fields.

    Returns:
        False also for what is not understood, or says nothing.
    """
    meaning = parse(caption)
    if meaning is None:
        return False
    facts = scene.facts() if isinstance(scene, Scene) else scene
    things = facts["objects"]
    for mention in meaning.mentions:
        if mention.count is not None and sum(map(mention.fits, things)) != mention.count:
            return False
    related = {(i, name, j) for i, name, j in facts["relations"]}
    return any(_holds(meaning, chosen, things, related) for chosen in _choices(meaning, things))


def _choices(meaning: Meaning, things: list[Mapping[str, Any]]) -> list[dict[int, int]]:
    """List every way to tell which object each single mention means."""
    free = [k for k, mention in enumerate(meaning.mentions) if mention.count in (None, 1)]
    chosen: list[dict[int, int]] = [{}]
    for k in free:
        mention = meaning.mentions[k]
        fitting = [i for i, thing in enumerate(things) if mention.fits(thing)]
        chosen = [
            {**choice, k: i}
            for choice in chosen
            for i in fitting
            if not mention.new or all(i != j or not meaning.mentions[m].new for m, j in choice.items())
        ]
    return chosen


def _holds(
    meaning: Meaning, chosen: dict[int, int], things: list[Mapping[str, Any]], related: set[tuple[int, str, int]]
) -> bool:
    if any((chosen.get(i, -1), name, chosen.get(j, -1)) not in related for i, name, j in meaning.relations):
        return False
    return all(
        k in chosen and set(place.split()) <= set(things[chosen[k]]["place"].split()) for k, place in meaning.places
    )


@cache
def _lexemes(language: str) -> tuple[re.Pattern[str], dict[str, tuple[str, Any]]]:
    """Return the pattern that finds the next word, and what each word means."""
    lexicon = LEXICONS[language]
    meant: dict[str, tuple[str, Any]] = {}
    tables = (("shape", lexicon.shapes), ("colour", lexicon.colours), ("size", lexicon.sizes))
    for kind, forms in (*tables, ("relation", lexicon.relations), ("place", lexicon.places)):
        meant |= {form: (kind, name) for name, words in forms.items() for form in words}
    meant |= dict.fromkeys(lexicon.nouns, ("shape", None))
    if language == "en":
        plurals = {f"{word}{end}": value for word, value in meant.items() if value[0] == "shape" for end in ("s", "es")}
        meant |= plurals
    meant |= {word: ("count", count) for word, count in lexicon.counts.items()}
    meant |= {word: ("one", word in _THE) for word in lexicon.one}
    meant |= dict.fromkeys(lexicon.at, ("at", None))
    meant |= dict.fromkeys(lexicon.pauses, ("pause", None))
    meant |= dict.fromkeys(lexicon.fillers, ("filler", None))
    longest = "|".join(re.escape(word) for word in sorted(meant, key=len, reverse=True))
    return re.compile(rf"(?:{longest})(?!\w)" if language == "en" else longest), meant


def parse(caption: str) -> Meaning | None:
    """Read a caption.

    Returns:
        What it says; None when a word is unknown, a sentence is unfinished, or nothing is said.
    """
    language = language_of(caption)
    text = re.sub(r"([,;:.])", r" \1 ", caption.lower()).strip()
    pattern, meant = _lexemes(language)
    reader = _Reader(after=language == "zh")
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        match = pattern.match(text, place)
        if match is None:
            return None
        reader.read(*meant[match.group()])
        place = match.end()
    return reader.finish()


class _Reader:
    """Goes through a caption word by word.

    English says a relation before the other object ("left of B"), Chinese after it ("at B's left"). `subject` is what
    the clause is about, `last` the mention just made, `other` the one after the Chinese "at"; `relation`, `backwards`
    and `place` were said and wait for the mention that completes them.
    """

    def __init__(self, *, after: bool) -> None:
        self.after = after
        self.meaning = Meaning()
        self.next = Mention()
        self.begun = False
        self.subject: int | None = None
        self.last: int | None = None
        self.other: int | None = None
        self.relation: str | None = None
        self.backwards: tuple[str, int] | None = None
        self.place: str | None = None
        self.at = False
        self.wrong = False

    def read(self, kind: str, value: Any) -> None:
        """Take one word."""
        if kind == "shape":
            self._mention(value)
        elif kind == "relation":
            self._relate(value)
        elif kind == "place":
            self._put(value)
        elif kind == "at":
            self.at = True
        elif kind == "pause":
            self.last = None
        elif kind != "filler":
            self._describe(kind, value)

    def finish(self) -> Meaning | None:
        """Return what was said, unless something was left open."""
        waiting = (self.relation, self.backwards, self.place)
        unfinished = self.begun or self.at or any(value is not None for value in waiting)
        return None if self.wrong or unfinished or not self.meaning.mentions else self.meaning

    def _describe(self, kind: str, value: Any) -> None:
        self.begun = True
        if kind == "count":
            self.next.count = value
        elif kind == "one":
            self.next.definite = value
        else:
            self.wrong |= self.next.properties.setdefault(kind, value) != value

    def _mention(self, shape: str | None) -> None:
        if shape is not None:
            self.next.properties["shape"] = shape
        self.next.definite |= self.after and not self.begun
        self.meaning.mentions.append(self.next)
        self.next, self.begun = Mention(), False
        this, before = len(self.meaning.mentions) - 1, self.last
        self.last = this
        if self.at:
            self.other = this
        elif self.relation is not None:
            self._complete(self.relation, this)
        else:
            self._start(this, before)

    def _complete(self, relation: str, other: int) -> None:
        if self.subject is None:
            self.backwards = (relation, other)
        else:
            self.meaning.relations.append((self.subject, relation, other))
        self.relation = None

    def _start(self, this: int, before: int | None) -> None:
        if self.backwards is not None:
            self.meaning.relations.append((this, *self.backwards))
            self.backwards = None
        elif before is not None:
            self.wrong = True
        if self.place is not None:
            self.meaning.places.append((this, self.place))
            self.place = None
        self.subject = this

    def _relate(self, name: str) -> None:
        self.wrong |= self.begun or self.relation is not None
        if not self.after:
            self.relation = name
        elif self.at and self.subject is not None and self.other is not None:
            self.meaning.relations.append((self.subject, name, self.other))
            self.at, self.other = False, None
        elif self.last is not None and not self.at:
            self.backwards, self.subject = (name, self.last), None
        else:
            self.wrong = True

    def _put(self, name: str) -> None:
        self.wrong |= self.begun or self.place is not None
        whose = self.subject if self.at else self.last
        if whose is None:
            self.place = name
        else:
            self.meaning.places.append((whose, name))
        self.at = False
