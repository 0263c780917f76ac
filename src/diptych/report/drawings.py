"""The drawn pictures on the page of a run: for some captions the real picture, and what was drawn for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diptych.core.model import ImageGenerator, Model
from diptych.data.images import BadPicture, decode
from diptych.models.generating import pictures_for
from diptych.report.page import data_uri
from diptych.tasks.data import TaskData
from diptych.tasks.drawings import NOISE, DrawingData, spread

SHOWN, EACH, SIDE = 16, 6, 96
"""Captions on the page, pictures drawn for each, and pixels of a picture's side."""


def drawing_sections(data: TaskData, model: Model, split: str) -> list[dict[str, Any]]:
    """Draw for some captions of a split, or of dev or train where it is empty.

    Returns:
        Sections for the page; none for a system that does not draw.
    """
    if not isinstance(model, ImageGenerator) or not isinstance(data, DrawingData):
        return []
    found = ((name, data.pairs.readable(data.source.rows(name))) for name in (split, "dev", "train"))
    shown, rows = next((name, rows) for name, rows in found if len(rows) > 0)
    note = (
        f"Captions taken evenly from {shown}: the real picture first, then {EACH} drawn for its first caption. A "
        f"column has the same noise in every row. {data.protocol(shown)}"
    )
    cards = [_card(data, model.eval(), row) for row in spread(rows, SHOWN).tolist()]
    return [{"title": "Drawn for captions", "note": note, "queries": cards}]


def _card(data: DrawingData, model: Model, row: int) -> dict[str, Any]:
    text = data.source.row(row).captions[0]
    (drawn,) = pictures_for(model, data.tokenizer, data.spec, text, count=EACH, seed=NOISE)
    right = ""
    if data.recogniser is not None:
        pixels = torch.from_numpy(np.stack([np.asarray(one) for one in drawn])).permute(0, 3, 1, 2)
        seen = data.recogniser.look(pixels.to(next(model.parameters()).device)).logits.argmax(1)
        asked = str(data.source.row(row).fields.get("label"))
        count = sum(data.recogniser.spec.classes[place] == asked for place in seen.tolist())
        right = f"recognised as {asked}: {count} of {EACH}"
    pictures = [_real(data, row), *(data_uri(one, side=SIDE) for one in drawn)]
    return {"title": text, "note": right, "query": "", "pictures": pictures, "alt": "drawn for the text", "found": []}


def _real(data: DrawingData, row: int) -> str:
    try:
        pixels = decode(data.source.picture(row), size=data.spec.image_size, crop=data.pairs.crop)
    except BadPicture:
        return ""
    return data_uri(pixels.permute(1, 2, 0).numpy(), side=SIDE)
