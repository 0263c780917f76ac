"""Questions: a source of pictures seen as what is asked about each, with the answers and the kinds of questions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from diptych.core.errors import UserError, nearest
from diptych.data.source import Row, Source
from diptych.data.view import View

QUESTION = ("question", "questions", "query")
ANSWER = ("answers", "answer", "multiple_choice_answer", "direct_answers")
KIND = ("kind", "question_type", "answer_type", "question_kind", "type")
_KEPT = 50_000  # rows whose questions are kept apart


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture.

    Args:
        question: its words.
        answers: what was answered, by one or by several people; in small letters.
        kind: of the question, such as "colour".
    """

    question: str
    answers: tuple[str, ...]
    kind: str

    @property
    def answer(self) -> str:
        """The answer that most gave, of equals the one that was given first; empty when there is none."""
        return Counter(self.answers).most_common(1)[0][0] if self.answers else ""


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are found among the columns.

    Args:
        question: the column of questions; empty: one of `QUESTION`.
        answer: the column of answers; empty: one of `ANSWER`.
        kind: the column of their kinds; empty: one of `KIND`, or a guess by the words.
        together: several answers are one answer ("lamp, table"), rather than the answers of several people.
    """

    question: str = ""
    answer: str = ""
    kind: str = ""
    together: bool = False


class Questions(View):
    """The same pictures, with what is asked about each in the place of captions.

    Args:
        source: with columns, or a nested list `questions` as the built-in scenes have it.
        asking: which columns.

    Raises:
        UserError: when no question is found.
    """

    def __init__(self, source: Source, asking: Asking) -> None:
        named = [name for name in (asking.question, asking.answer, asking.kind) if name]
        how = ["as questions", *(["with all answers together"] if asking.together else []), *named]
        super().__init__(source, how=", ".join(how))
        self.asking = asking
        self._asked = lru_cache(_KEPT)(self._read)
        if not any(self._asked(place) for place in range(len(source))):
            known = dict.fromkeys(name for place in range(min(100, len(source))) for name in source.row(place).fields)
            raise UserError(
                f"{source.name} has no questions with answers: name their columns with --set question_column= and "
                f"--set answer_column= (columns: {', '.join(known) or 'none'})"
            )

    def change(self, row: Row, place: int) -> Row:
        """Put the questions in the place of captions."""
        return replace(row, captions=tuple(one.question for one in self._asked(place)))

    def asked(self, index: int) -> tuple[Asked, ...]:
        """Return what is asked about a picture, in the order of the captions."""
        return self._asked(int(self.kept[index]))

    def _read(self, place: int) -> tuple[Asked, ...]:
        return tuple(read_asked(self.source.row(place).fields, self.asking))


def read_asked(fields: Mapping[str, Any], asking: Asking) -> list[Asked]:
    """Find the questions in the columns of a row, whether one line told of them or several.

    Returns:
        Only those that have a question and an answer.

    Raises:
        UserError: when a column that was named is not there.
    """
    nested = fields.get("questions")
    if not asking.question and isinstance(nested, list) and all(isinstance(one, Mapping) for one in nested):
        return [asked for one in nested for asked in _lines(one, asking)]
    return _lines(fields, asking)


def kind_of(question: str, answer: str) -> str:
    """Guess the kind of an English question: count, colour, yes or no, place, or other."""
    words = re.findall(r"\w+", question.lower())
    if words[:2] == ["how", "many"]:
        return "count"
    if "colour" in words or "color" in words or "colors" in words:
        return "colour"
    if answer in ("yes", "no"):
        return "yes or no"
    return "place" if words[:1] == ["where"] else "other"


def answer_texts(value: Any) -> tuple[str, ...]:
    """Collect the answers in a value: a text, a number, a list, a JSON list inside of a text, or objects with one."""
    if value is None or value == "":
        return ()
    if isinstance(value, str) and value.startswith("["):
        try:
            return answer_texts(json.loads(value))
        except ValueError:
            return (_tidy(value),)
    if isinstance(value, Mapping):
        return answer_texts(next((value[name] for name in ("answer", "text", "raw") if name in value), None))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(text for one in value for text in answer_texts(one))
    return (_tidy(str(value)),)


def _lines(fields: Mapping[str, Any], asking: Asking) -> list[Asked]:
    questions = fields.get(_column(fields, asking.question, QUESTION, "question_column"))
    answers = fields.get(_column(fields, asking.answer, ANSWER, "answer_column"))
    kinds = fields.get(_column(fields, asking.kind, KIND, "kind_column"))
    if questions is None:
        return []
    if not isinstance(questions, list):  # one line, or several people's answers to one question
        return _one(questions, answers, kinds, asking)
    told, sorts = _each(answers, len(questions)), _each(kinds, len(questions))
    return [asked for line in zip(questions, told, sorts, strict=True) for asked in _one(*line, asking)]


def _one(question: Any, answers: Any, kind: Any, asking: Asking) -> list[Asked]:
    text, told = " ".join(str(question or "").split()), answer_texts(answers)
    if not text or not told:
        return []
    if asking.together:
        told = (", ".join(sorted(set(told))),)
    return [Asked(text, told, str(kind) if kind not in (None, "") else kind_of(text, told[0]))]


def _each(value: Any, count: int) -> Sequence[Any]:
    """Give each line of a picture its value: a list of one for each, or one that all share."""
    return value if isinstance(value, list) and len(value) == count else [value] * count


def _column(fields: Mapping[str, Any], named: str, usual: Sequence[str], setting: str) -> str:
    if not named:
        return next((name for name in usual if name in fields), "")
    if named not in fields:
        raise UserError(
            f"there is no column {named!r}{nearest(named, list(fields))}, given as {setting} (columns: "
            f"{', '.join(fields)})"
        )
    return named


def _tidy(text: str) -> str:
    return " ".join(text.lower().split())
