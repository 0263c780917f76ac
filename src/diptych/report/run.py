"""The page of a run: scores, curves, what is found for some texts and pictures, the worst failures, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.model import Model, PairEncoder
from diptych.data.images import BadPicture, decode
from diptych.metrics.shown import show, tables
from diptych.report.answers import answer_sections
from diptych.report.captions import caption_sections
from diptych.report.classes import class_sections
from diptych.report.curves import curves
from diptych.report.drawings import drawing_sections
from diptych.report.page import data_uri, render
from diptych.report.why import why_sections
from diptych.tasks.data import TaskData
from diptych.tasks.pair_data import Gallery, PairData
from diptych.tasks.retrieval import encode
from diptych.train.checkpoint import read_record

SHOWN, QUERIES, LONGEST_GALLERY = 6, 6, 5000
TILES = {
    "image_to_text/r@1": "image to text, first hit right (R@1)",
    "text_to_image/r@1": "text to image, first hit right (R@1)",
    "texts": "texts in the gallery",
    "accuracy": "right",
    "source/accuracy": "of the source's pictures named right",
    "target/accuracy": "of the target's pictures named right",
    "accuracy_blind": "of answers right without the picture",
    "accuracy_constant": "right with one answer to all",
    "cider_d": "CIDEr-D of the captions",
    "true": "of captions true of their picture",
    "recognised": "of drawn pictures show what was asked",
}
NOTE = (
    "R@K: how often a right one is among the first K. A picture is right with any of its texts; ties count against the "
    "model; a sentence that several pictures share is right for each."
)
UNDRAWN = (
    *("rank", "texts", "r@5", "mean_r@1", "words", "bleu1", "accuracy_constant", "questions"),
    *("frechet", "inception", "real/recognised", "real/colour", "real/shape"),
)
"""Scores whose curves would only crowd the picture."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Some texts or pictures with what was found for them; `rank` of the right one, from 1."""

    query: int
    found: Int[Tensor, " k"]
    scores: Float[Tensor, " k"]
    rank: int


def write_report(
    out: Path, data: TaskData, model: Model, *, scores: Mapping[str, float] | None = None, split: str = "test"
) -> Path:
    """Write `report.html` into a run folder; one file that needs no network.

    Args:
        out: the run folder.
        data: what the pictures and texts are taken from.
        model: with its kept weights.
        scores: on `split` by flat names, where they were measured.
        split: which pictures are shown; dev or train where it is empty.

    Returns:
        Where the page is.
    """
    record = read_record(out)
    history = list(_history(out / "metrics.jsonl"))
    return render(
        "run.html.j2",
        out / "report.html",
        {
            "title": f"{record['system']} on {record['data']['named']}",
            "subtitle": record["data"]["source"],
            "tiles": list(_tiles(scores, history)),
            "tables": list(_tables(scores or {}, split)),
            "warnings": [f"step {row['step']:,}: {row['warning']}" for row in history if "warning" in row],
            "curves": _curves(history),
            "sections": [
                *_sections(data, model, split),
                *caption_sections(data, model, split),
                *class_sections(data, model, split),
                *answer_sections(data, model, split),
                *drawing_sections(data, model, split),
                *why_sections(data, model, split),
            ],
            "command": record.get("command", ""),
            "settings": list(_settings(record)),
        },
    )


def _history(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _tiles(scores: Mapping[str, float] | None, history: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for name, value in list((scores or {}).items()):
        if name in TILES:
            yield {"value": show(name, value), "name": TILES[name]}
    if history:
        yield {"value": f"{history[-1].get('step', 0):,}", "name": "training steps"}


def _tables(scores: Mapping[str, float], split: str) -> Iterator[dict[str, Any]]:
    for number, shown in enumerate(tables(scores)):
        yield {
            "title": f"Scores on {split}" if number == 0 else "",
            "note": NOTE if any(name.startswith("r@") for name in shown.names) else "",
            "head": ["", *(name.upper() if name.startswith("r@") else name for name in shown.names)],
            "rows": [[title, *cells] for title, cells in shown.rows],
        }


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    def line(name: str) -> list[tuple[float, float]]:
        return [(float(row["epoch"]), float(row[name])) for row in history if name in row and "epoch" in row]

    measured = dict.fromkeys(
        name for row in history for name in row if name.startswith("valid/") and "loss" not in name
    )
    scored = [name.removeprefix("valid/") for name in measured if not name.endswith(UNDRAWN)]
    named = dict.fromkeys(name for row in history for name in row if name.endswith("/loss") and name != "valid/loss")
    players = {name.removesuffix("/loss"): line(name) for name in named}
    return curves(
        {
            "loss": {"training": line("loss"), **players, "dev": line("valid/loss")},
            "dev scores": {name.replace("_", " ").replace("/", ", "): line(f"valid/{name}") for name in scored},
        }
    )


def _sections(data: TaskData, model: Model, split: str) -> list[dict[str, Any]]:
    if not isinstance(model, PairEncoder) or not isinstance(data, PairData):
        return []
    galleries = (data.gallery(name) for name in (split, "dev", "train"))
    gallery = Gallery(data, next(found for found in galleries if found is not None).rows[:LONGEST_GALLERY])
    image, image_id, text, text_id, _ = encode(model, gallery.epoch())
    by_text = list(_rank(text, image, text_id, image_id))
    by_image = list(_rank(image, text, image_id, text_id))
    spread = by_text[:: max(1, len(by_text) // QUERIES)][:QUERIES]
    worst = sorted(by_text, key=lambda ranked: -ranked.rank)[:QUERIES]
    shown = by_image[:: max(1, len(by_image) // QUERIES)][:QUERIES]
    return [
        {
            "title": "Texts find pictures",
            "note": "The best pictures for texts drawn evenly from the split; the right one has a green frame.",
            "queries": [_text_query(data, gallery, ranked, image_id) for ranked in spread],
        },
        {
            "title": "Pictures find texts",
            "note": "The best texts for pictures drawn evenly from the split; right ones are green.",
            "queries": [_image_query(data, gallery, ranked, image_id, text_id) for ranked in shown],
        },
        {
            "title": "The worst failures",
            "note": "Texts whose own picture came last; what came first instead.",
            "queries": [_text_query(data, gallery, ranked, image_id) for ranked in worst],
        },
    ]


def _rank(
    queries: Float[Tensor, "q d"], items: Float[Tensor, "n d"], query_id: Int[Tensor, " q"], item_id: Int[Tensor, " n"]
) -> Iterator[Ranked]:
    for number, (vector, own) in enumerate(zip(queries, query_id, strict=True)):
        scores = items @ vector
        right = item_id == own
        rank = int((scores > scores[right].max()).sum()) + 1 if bool(right.any()) else len(items)
        top = scores.topk(min(SHOWN, len(items)))
        yield Ranked(number, top.indices, top.values, rank)


def _text_query(data: PairData, gallery: Gallery, ranked: Ranked, image_id: Int[Tensor, " n"]) -> dict[str, Any]:
    own = int(gallery.text_rows[ranked.query])
    caption = data.source.row(own).captions[int(gallery.text_places[ranked.query])]
    found = []
    for place, score in zip(ranked.found.tolist(), ranked.scores.tolist(), strict=True):
        row = int(image_id[place])
        first = next(iter(data.source.row(row).captions), "")
        found.append({"image": _thumbnail(data, row), "caption": first, "score": score, "right": row == own})
    return {"title": caption, "note": f"its own picture came {_nth(ranked.rank)}", "found": found, "query": ""}


def _image_query(
    data: PairData, gallery: Gallery, ranked: Ranked, image_id: Int[Tensor, " n"], text_id: Int[Tensor, " m"]
) -> dict[str, Any]:
    own = int(image_id[ranked.query])
    texts = []
    for place, score in zip(ranked.found.tolist(), ranked.scores.tolist(), strict=True):
        row = int(text_id[place])
        caption = data.source.row(row).captions[int(gallery.text_places[place])]
        texts.append({"text": caption, "score": score, "right": row == own})
    note = f"the first of its own texts came {_nth(ranked.rank)}"
    return {"title": "", "note": note, "query": _thumbnail(data, own), "texts": texts}


def _thumbnail(data: PairData, row: int) -> str:
    try:
        pixels = decode(data.source.picture(row), size=160, crop="center")
    except BadPicture:
        return ""
    return data_uri(pixels.permute(1, 2, 0).numpy())


def _nth(rank: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(rank, f"at place {rank:,}")


def _settings(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for section in ("config", "data", "train", "versions"):
        for name, value in record.get(section, {}).items():
            if not isinstance(value, dict | list):
                yield f"{section}.{name}", str(value)
