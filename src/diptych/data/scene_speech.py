"""Phrases and sentences of the scenes: one class a language, with the same methods."""

from __future__ import annotations

from abc import ABC, abstractmethod

from diptych.data.scene_graph import Thing
from diptych.data.scene_random import Dice
from diptych.data.scene_words import CHINESE, ENGLISH, Forms, Lexicon

_USUAL = 70
"""Times in a hundred that a synonym is not used."""


class Speech(ABC):
    """Says things in one language; where there are several wordings, the dice choose."""

    lexicon: Lexicon

    def __init__(self, dice: Dice, *, plain: bool = False) -> None:
        self.dice = dice
        self.plain = plain

    def word(self, forms: Forms, meant: str) -> str:
        """Choose a word; always the usual one when the speech is plain."""
        return forms[meant][0] if self.plain or self.dice.chance(_USUAL) else self.dice.pick(forms[meant])

    def thing(self, thing: Thing, use: str, *, the: bool = False) -> str:
        """Name one object by those of its properties that are in `use`: "size colour shape"."""
        return self.kind(
            size=thing.size if "size" in use else None,
            colour=thing.colour if "colour" in use else None,
            shape=thing.shape if "shape" in use else None,
            the=the,
        )

    @abstractmethod
    def kind(self, *, size: str | None, colour: str | None, shape: str | None, the: bool = False) -> str:
        """Name one of a kind: "a large red circle"; with `the`, "the large red circle"."""

    @abstractmethod
    def many(self, *, colour: str | None = None, shape: str | None = None) -> str:
        """Name a kind in the plural: "red shapes"."""

    @abstractmethod
    def several(self, count: int, *, colour: str | None = None, shape: str | None = None) -> str:
        """Name exactly so many of a kind: "two red shapes"."""

    @abstractmethod
    def join(self, phrases: list[str]) -> str:
        """Put "and" between phrases."""

    @abstractmethod
    def related(self, subject: str, relations: list[tuple[str, str]]) -> str:
        """Say that an object stands in each relation to another: "A left of B and above C"."""

    @abstractmethod
    def related_backwards(self, subject: str, relation: str, other: str) -> str:
        """Say the same, the other object first: "left of B there is A"."""

    @abstractmethod
    def placed(self, subject: str, place: str) -> str:
        """Say where in the picture an object is."""

    @abstractmethod
    def clauses(self, clauses: list[str]) -> str:
        """Put whole clauses one after another."""

    @abstractmethod
    def shows(self, listing: str) -> str:
        """Say that this is what the picture shows."""

    @abstractmethod
    def summed(self, count: int, listing: str) -> str:
        """Say how many objects there are in all, then which."""


class _English(Speech):
    """British spelling."""

    lexicon = ENGLISH

    def kind(self, *, size: str | None, colour: str | None, shape: str | None, the: bool = False) -> str:
        words = self._words(size, colour, shape)
        article = "the" if the else "an" if words[0] in "aeiou" else "a"
        return f"{article} {words}"

    def many(self, *, colour: str | None = None, shape: str | None = None) -> str:
        words = self._words(None, colour, shape)
        return f"{words}es" if words.endswith(("x", "s")) else f"{words}s"

    def several(self, count: int, *, colour: str | None = None, shape: str | None = None) -> str:
        number = ("no", "one", "two", "three", "four")[count]
        named = self._words(None, colour, shape) if count == 1 else self.many(colour=colour, shape=shape)
        return f"{number} {named}"

    def _words(self, size: str | None, colour: str | None, shape: str | None) -> str:
        lexicon = self.lexicon
        parts = [
            self.word(lexicon.sizes, size) if size is not None else "",
            self.word(lexicon.colours, colour) if colour is not None else "",
            self.word(lexicon.shapes, shape) if shape is not None else "shape",
        ]
        return " ".join(part for part in parts if part)

    def join(self, phrases: list[str]) -> str:
        return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)

    def related(self, subject: str, relations: list[tuple[str, str]]) -> str:
        links = [f"{self.word(self.lexicon.relations, relation)} {other}" for relation, other in relations]
        verb = " is" if subject.startswith("the ") else ""
        return f"{subject}{verb} {' and '.join(links)}"

    def related_backwards(self, subject: str, relation: str, other: str) -> str:
        return f"{self.word(self.lexicon.relations, relation)} {other} there is {subject}"

    def placed(self, subject: str, place: str) -> str:
        return f"{subject} {self.word(self.lexicon.places, place)}"

    def clauses(self, clauses: list[str]) -> str:
        return ", and ".join(clauses)

    def shows(self, listing: str) -> str:
        return self.dice.pick(("", "a picture of ", "there is ", "the picture shows ")) + listing

    def summed(self, count: int, listing: str) -> str:
        return f"{self.several(count)}: {listing}"


class _Chinese(Speech):
    """Simplified characters."""

    lexicon = CHINESE

    def kind(self, *, size: str | None, colour: str | None, shape: str | None, the: bool = False) -> str:
        return ("" if the else "一个") + self._words(size, colour, shape)

    def many(self, *, colour: str | None = None, shape: str | None = None) -> str:
        return self._words(None, colour, shape)

    def several(self, count: int, *, colour: str | None = None, shape: str | None = None) -> str:
        return ("没有", "只有一个", "两个", "三个", "四个")[count] + self._words(None, colour, shape)

    def _words(self, size: str | None, colour: str | None, shape: str | None) -> str:
        lexicon = self.lexicon
        big = lexicon.sizes[size][0] if size is not None else ""
        tint = self.word(lexicon.colours, colour) if colour is not None else ""
        form = self.word(lexicon.shapes, shape) if shape is not None else "图形"
        if big and tint and not self.plain and self.dice.chance(30):
            return f"{tint}的{big[:1]}{form}"
        return f"{big}{tint}{'的' if len(tint) == 1 else ''}{form}"

    def join(self, phrases: list[str]) -> str:
        return "和".join(["、".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)

    def related(self, subject: str, relations: list[tuple[str, str]]) -> str:
        at = self.lexicon.at[0] if self.plain else self.dice.pick(self.lexicon.at)
        links = [f"{at}{other}的{self.word(self.lexicon.relations, relation)}" for relation, other in relations]
        return subject + "，".join(links)

    def related_backwards(self, subject: str, relation: str, other: str) -> str:
        return f"{other}的{self.word(self.lexicon.relations, relation)}有{subject}"

    def placed(self, subject: str, place: str) -> str:
        where = self.word(self.lexicon.places, place)
        return f"{where}有{subject}" if self.dice.chance(50) else f"{subject}在{where}"

    def clauses(self, clauses: list[str]) -> str:
        return "，".join(clauses)

    def shows(self, listing: str) -> str:
        return self.dice.pick(("", "图中有", "画面里有", "一幅画，画着")) + listing

    def summed(self, count: int, listing: str) -> str:
        return f"{self.several(count)}：{listing}"


SPEECHES: dict[str, type[Speech]] = {"en": _English, "zh": _Chinese}
