"""The answers on the page of a run: questions with the right answer and the given one, beside what sees no picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.core.model import Answerer, Model
from diptych.data.images import BadPicture, decode
from diptych.data.questions import Asked
from diptych.metrics.answers import Told
from diptych.report.page import data_uri
from diptych.tasks.answer_data import AnswerData
from diptych.tasks.data import TaskData

LOOKED_AT, SHOWN, WRONG = 80, 4, 12
"""Pictures asked about, questions of each kind, and wrong answers on the page."""


def answer_sections(data: TaskData, model: Model, split: str) -> list[dict[str, Any]]:
    """Ask about some pictures of a split, or of dev or train where it is empty.

    Returns:
        Sections for the page; none for a system that does not answer.
    """
    if not isinstance(model, Answerer) or not isinstance(data, AnswerData):
        return []
    rows = next(found for found in map(data.readable, (split, "dev", "train")) if len(found) > 0)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(np.int64))]
    batches = data.asked(rows)
    assert batches is not None
    told = data.told(model.eval(), batches.epoch(0))
    kinds: dict[str, list[tuple[int, Asked, Told]]] = {}
    for one in told:
        kinds.setdefault(one[1].kind, []).append(one)
    even = [one for _, members in sorted(kinds.items()) for one in _spread(members, SHOWN)]
    wrong = _spread([one for one in told if one[2].given != one[2].answer], WRONG)
    sections = [
        {
            "title": "Answers",
            "note": f"Some questions of every kind, about {len(rows)} pictures drawn evenly from the split. Green is "
            "right. Without the picture: what the same model says when it cannot look.",
            "queries": [_card(data, *one) for one in even],
        }
    ]
    if wrong:
        note = "Drawn evenly among the wrong answers to those questions."
        sections.append({"title": "Wrong answers", "note": note, "queries": [_card(data, *one) for one in wrong]})
    return sections


def _spread(members: list[tuple[int, Asked, Told]], count: int) -> list[tuple[int, Asked, Told]]:
    places = np.unique(np.linspace(0, len(members) - 1, min(count, len(members))).astype(np.int64))
    return [members[place] for place in places.tolist()]


def _card(data: AnswerData, row: int, asked: Asked, told: Told) -> dict[str, Any]:
    lines = [("answer", told.given), ("without the picture", told.blind), ("always, to this kind", told.usual)]
    texts = [
        {"text": f"{what}: {text}", "score": None, "right": text == told.answer}
        for what, text in lines
        if text is not None
    ]
    people = f" (of {len(asked.answers)} people)" if len(asked.answers) > 1 else ""
    return {
        "title": asked.question,
        "note": f"{asked.kind}; right: {told.answer}{people}",
        "query": _picture(data, row),
        "texts": texts,
    }


def _picture(data: AnswerData, row: int) -> str:
    try:
        pixels = decode(data.source.picture(row), size=160, crop="center")
    except BadPicture:
        return ""
    return data_uri(pixels.permute(1, 2, 0).numpy())
