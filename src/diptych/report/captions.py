"""The captions on the page of a run: what was written beside what people wrote, and where it went worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diptych.core.model import Captioner, Model
from diptych.data.images import BadPicture, decode
from diptych.data.scene_truth import truth
from diptych.metrics.captions import References
from diptych.metrics.words import lines
from diptych.report.page import data_uri
from diptych.tasks.captions import CaptionData
from diptych.tasks.data import TaskData

LOOKED_AT, SHOWN, WORST = 300, 12, 6


def caption_sections(data: TaskData, model: Model, split: str) -> list[dict[str, Any]]:
    """Write about some pictures of a split, or of dev or train where it is empty.

    Returns:
        Sections for the page; none for a system that does not write.
    """
    if not isinstance(model, Captioner) or not isinstance(data, CaptionData):
        return []
    found = (data.pictures(name, most=LOOKED_AT) for name in (split, "dev", "train"))
    told = data.write(model, next(batches for batches in found if batches is not None).epoch(0))
    rows = list(told)
    known = References([lines(data.source.row(row).captions) for row in rows])
    scores = known.cider(lines(told.values()))
    cards = [_card(data, row, text, score) for (row, text), score in zip(told.items(), scores.tolist(), strict=True)]
    even = np.unique(np.linspace(0, len(rows) - 1, SHOWN).astype(np.int64))
    return [
        {
            "title": "Captions",
            "note": "Pictures drawn evenly from the split: what was written, and below it what people wrote.",
            "queries": [cards[place] for place in even.tolist()],
        },
        {
            "title": "The worst captions",
            "note": f"Those of the lowest CIDEr-D among {len(rows)} pictures.",
            "queries": [cards[place] for place in np.argsort(scores, kind="stable")[:WORST].tolist()],
        },
    ]


def _card(data: CaptionData, row: int, text: str, score: float) -> dict[str, Any]:
    found = data.source.row(row)
    texts = [{"text": caption, "score": None, "right": False} for caption in found.captions]
    return {
        "title": text or "(nothing)",
        "note": _note(text, score, found.fields),
        "query": _picture(data, row),
        "texts": texts,
    }


def _note(text: str, score: float, fields: Mapping[str, Any]) -> str:
    note = f"CIDEr-D {score:.2f}"
    if "objects" in fields and "relations" in fields:
        note += ", true" if truth(text, fields) else ", not true"
    return note


def _picture(data: CaptionData, row: int) -> str:
    try:
        pixels = decode(data.source.picture(row), size=160, crop="center")
    except BadPicture:
        return ""
    return data_uri(pixels.permute(1, 2, 0).numpy())
