"""Galleries side by side: what several systems find for the same texts and the same pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.model import Model, PairEncoder
from diptych.data.images import BadPicture, decode
from diptych.data.source import Source
from diptych.metrics.ranks import ranks
from diptych.report.page import data_uri
from diptych.tasks.data import TaskData
from diptych.tasks.pair_data import Gallery, PairData
from diptych.tasks.retrieval import encode

SHOWN, QUERIES, LONGEST = 4, 6, 1000


@dataclass(frozen=True, slots=True)
class View:
    """A gallery as one system sees it.

    Args:
        name: of the contestant.
        pictures: the row of each picture vector.
        texts: the row and place of each text vector.
        image: unit vectors of the pictures.
        text: unit vectors of the texts.
        picture_ranks: for each picture the rank of the first of its texts, from 1.
        text_ranks: for each text the rank of its picture, from 1.
    """

    name: str
    pictures: list[int]
    texts: list[tuple[int, int]]
    image: Float[Tensor, "m d"]
    text: Float[Tensor, "n d"]
    picture_ranks: dict[int, int]
    text_ranks: dict[tuple[int, int], int]


def look(name: str, model: Model, data: TaskData) -> View | None:
    """Encode the first pictures of the test split and their texts; None for a system without retrieval.

    Args:
        name: of the contestant.
        model: trained.
        data: what it is judged on; dev where there is no test split.
    """
    if not isinstance(model, PairEncoder) or not isinstance(data, PairData):
        return None
    whole = data.gallery("test") or data.gallery("dev")
    if whole is None:
        return None
    gallery = Gallery(data, whole.rows[:LONGEST])
    image, image_id, text, text_id, keys = encode(model, gallery.epoch())
    kept = torch.isin(text_id, image_id)
    of_images, of_texts = ranks(image, text[kept], image_id=image_id, text_id=text_id[kept], text_key=keys[kept])
    every = list(zip(gallery.text_rows.tolist(), gallery.text_places.tolist(), strict=True))
    texts = [one for one, real in zip(every, kept.tolist(), strict=True) if real]
    pictures = image_id.tolist()
    return View(
        name,
        pictures,
        texts,
        image,
        text[kept],
        {row: int(rank) for row, rank in zip(pictures, of_images.tolist(), strict=True)},
        {one: int(rank) for one, rank in zip(texts, of_texts.tolist(), strict=True)},
    )


def side_by_side(views: Sequence[View], source: Source) -> list[dict[str, Any]]:
    """Lay out what every system finds for the same queries, for the page of a comparison.

    Args:
        views: of the systems that have retrieval.
        source: where pictures and texts come from.

    Returns:
        Sections with a title, a note and queries, each with one column a system.
    """
    if not views:
        return []
    thumbnail = _thumbnails(source)
    texts = [one for one in views[0].texts if all(one in view.text_ranks for view in views)]
    pictures = [row for row in views[0].pictures if all(row in view.picture_ranks for view in views)]
    apart = sorted(texts, key=lambda one: _disagreement([view.text_ranks[one] for view in views]), reverse=True)
    sections = [
        {
            "title": "Texts find pictures",
            "note": "The best pictures for texts drawn evenly from the split; the right one has a green frame.",
            "queries": [_asked_by_text(one, views, source, thumbnail) for one in _evenly(texts)],
        },
        {
            "title": "Pictures find texts",
            "note": "The best texts for pictures drawn evenly from the split; right ones are green.",
            "queries": [_asked_by_picture(row, views, source, thumbnail) for row in _evenly(pictures)],
        },
    ]
    if len(views) > 1:
        note = "The texts whose picture came at the most different places."
        queries = [_asked_by_text(one, views, source, thumbnail) for one in apart[:QUERIES]]
        sections.append({"title": "Where they differ most", "note": note, "queries": queries})
    return sections


def _evenly(items: list[Any]) -> list[Any]:
    return items[:: max(1, len(items) // QUERIES)][:QUERIES]


def _disagreement(places: Sequence[int]) -> float:
    return math.log(max(places)) - math.log(min(places))


def _asked_by_text(
    one: tuple[int, int], views: Sequence[View], source: Source, thumbnail: Callable[[int], str]
) -> dict[str, Any]:
    row, place = one
    columns = []
    for view in views:
        scores = view.image @ view.text[view.texts.index(one)]
        found = scores.topk(min(SHOWN, len(scores))).indices.tolist()
        hits = [
            {
                "image": thumbnail(view.pictures[hit]),
                "text": _caption(source, view.pictures[hit]),
                "right": view.pictures[hit] == row,
            }
            for hit in found
        ]
        columns.append({"name": view.name, "rank": view.text_ranks[one], "pictures": hits, "texts": []})
    return {"title": source.row(row).captions[place], "image": thumbnail(row), "columns": columns}


def _asked_by_picture(
    row: int, views: Sequence[View], source: Source, thumbnail: Callable[[int], str]
) -> dict[str, Any]:
    columns = []
    for view in views:
        scores = view.text @ view.image[view.pictures.index(row)]
        found = [view.texts[hit] for hit in scores.topk(min(SHOWN, len(scores))).indices.tolist()]
        hits = [{"text": source.row(own).captions[place], "right": own == row} for own, place in found]
        columns.append({"name": view.name, "rank": view.picture_ranks[row], "pictures": [], "texts": hits})
    return {"title": "", "image": thumbnail(row), "columns": columns}


def _caption(source: Source, row: int) -> str:
    return next(iter(source.row(row).captions), "")


def _thumbnails(source: Source) -> Callable[[int], str]:
    """Return what makes a small picture of a row, once."""

    @cache
    def make(row: int) -> str:
        try:
            pixels = decode(source.picture(row), size=128, crop="center")
        except BadPicture:
            return ""
        return data_uri(pixels.permute(1, 2, 0).numpy(), side=96)

    return make
