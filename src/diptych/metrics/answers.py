"""Scores of answers: exact accuracy, and VQA accuracy, which knows that people do not agree.

Reference:
    Antol et al. 2015, VQA, arXiv 1505.00468, and the evaluation code of its authors.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

ENOUGH = 3
"""People who must have given an answer for it to count in full."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_SHORTENED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how's i'm
i've isn't it'd it'll let's ma'am mightn't might've mustn't must've needn't o'clock oughtn't shan't
should've shouldn't that's there's they'd they'll they're they've wasn't we've weren't what'll what're
what's where's who'd who'll who's who've why's won't would've wouldn't y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _SHORTENED.split()}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"\d,\d")
_POINT = re.compile(r"\.(?!\d)")


def normalise(answer: str) -> str:
    """Bring an answer to the form in which VQA answers are compared.

    Small letters; no punctuation but points in numbers; number words as digits; no articles; apostrophes put back. The
    authors' list of contractions has more and odder entries than this one.
    """
    words = [_DIGITS.get(word, word) for word in _without_marks(answer).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_marks(text: str) -> str:
    """Drop a mark that stands beside a space, or any where digits have a comma between; else put a space there."""
    found = text.strip()
    for mark in _MARKS:
        apart = f"{mark} " in text or f" {mark}" in text or _COMMA.search(text) is not None
        found = found.replace(mark, "" if apart else " ")
    return _POINT.sub("", found)


def vqa_accuracy(given: str, answers: Sequence[str], *, official: bool = False) -> float:
    """Return the mean, over the people left out in turn, of min(others who gave this answer / 3, 1).

    Of ten people 0, 1, 2, 3, 4 or more who agree make 0, 0.3, 0.6, 0.9, 1. Fewer than four people count by what there
    is: of a single one all, of two each other.

    Args:
        given: by the model.
        answers: of all people.
        official: as the authors' first evaluation code does, for comparison with published numbers: people's answers
            lose their punctuation only where they are not all alike, and keep their number words and articles.

    Returns:
        A share in [0, 1]; 0 without any answers.
    """
    told = normalise(given)
    if official:
        alike = len(set(answers)) < 2
        people = [answer if alike else _without_marks(answer) for answer in answers]
    else:
        people = [normalise(answer) for answer in answers]
    if len(people) < 2:
        return float(told in people)
    agree, enough = people.count(told), min(ENOUGH, len(people) - 1)
    left_out = (agree * min((agree - 1) / enough, 1) if agree > 0 else 0) + (len(people) - agree) * min(
        agree / enough, 1
    )
    return left_out / len(people)


def soft_targets(answers: Sequence[str], known: Mapping[str, int]) -> dict[int, float]:
    """Return what each known answer is worth to several people's answers, by its place; the rest is worth nothing."""
    found = {answer: known[answer] for answer in dict.fromkeys(answers) if answer in known}
    return {place: vqa_accuracy(answer, answers) for answer, place in found.items()}


def commonest(answers: Sequence[str]) -> list[str]:
    """Sort different answers, the most frequent first, equals by the alphabet."""
    return [answer for answer, _ in sorted(Counter(answers).items(), key=lambda item: (-item[1], item[0]))]


@dataclass(frozen=True, slots=True)
class Told:
    """What was answered to a question, and what would have been answered without looking.

    Args:
        given: the model's answer.
        answer: the right one.
        answers: of all people.
        kind: of the question.
        constant: the commonest answer in training.
        usual: the commonest answer in training to questions of this kind.
        blind: the model's answer without the picture; None where it never looks at one.
    """

    given: str
    answer: str
    answers: Sequence[str]
    kind: str
    constant: str
    usual: str
    blind: str | None = None


def answer_scores(told: Sequence[Told]) -> dict[str, float]:
    """Score answers: all together, and each kind of question where there are several.

    Returns:
        By flat names: `accuracy` (the right answer given), `accuracy_vqa` where several people answered, and what would
        have been right without looking: `accuracy_blind` (the model's, without pictures) and `accuracy_constant` (one
        answer to all; within a kind, the kind's); `questions` is their number. Those of a kind are `KIND/accuracy` ...
    """
    if not told:
        return {"accuracy": math.nan, "questions": 0}
    scores = _scores(told, [one.constant for one in told])
    kinds: dict[str, list[Told]] = {}
    for one in told:
        kinds.setdefault(one.kind.replace("/", " or "), []).append(one)
    for kind, members in sorted(kinds.items()) if len(kinds) > 1 else ():
        own = _scores(members, [one.usual for one in members])
        scores |= {f"{kind}/{name}": own[name] for name in scores if name in own and "/" not in name}
    return scores


def _scores(told: Sequence[Told], constants: Sequence[str]) -> dict[str, float]:
    found = {"accuracy": fmean(one.given == one.answer for one in told)}
    if any(len(one.answers) > 1 for one in told):
        found["accuracy_vqa"] = fmean(vqa_accuracy(one.given, one.answers) for one in told)
    if all(one.blind is not None for one in told):
        found["accuracy_blind"] = fmean(one.blind == one.answer for one in told)
    found["accuracy_constant"] = fmean(constant == one.answer for constant, one in zip(constants, told, strict=True))
    return found | {"questions": len(told)}
