"""The classes on the page of a run: how often each is named right, a map of the features, and what went wrong."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.model import Classifier, Model
from diptych.data.images import BadPicture, decode
from diptych.metrics.classes import confusion
from diptych.report.curves import COLOURS, INK
from diptych.report.page import data_uri
from diptych.tasks.class_scores import SOURCE, TARGET, Outputs
from diptych.tasks.classes import ClassData
from diptych.tasks.data import TaskData

CLASSES, MAPPED, COLOURED, WORST = 30, 400, 12, 12
MARKS = {SOURCE: "o", TARGET: "^"}


def class_sections(data: TaskData, model: Model, split: str) -> list[dict[str, Any]]:
    """Name the pictures of a split, or of all where it is empty.

    Returns:
        Sections for the page; none for a system that names no classes.
    """
    if not isinstance(model, Classifier) or not isinstance(data, ClassData):
        return []
    found = (data.judged(name, model) for name in (split, "all"))
    out = data.outputs(model, next(batches for batches in found if batches is not None).epoch(0))
    sides = {SOURCE: "source", TARGET: "target"} if len(data.sides.target) else {SOURCE: ""}
    tables = [_table(out, data.spec.classes, side, name) for side, name in sides.items()]
    note = "Each picture by its features, along the two directions in which they differ most. Colour: class."
    if TARGET in sides:
        note += " Dots: source, triangles: target. Adapted well, they lie in the same places."
    picture = {"title": "Where the pictures lie", "note": note, "queries": [], "figure": _map(out, data.spec.classes)}
    return [*(table for table in tables if table is not None), picture, *_wrong(data, out)]


def _table(out: Outputs, classes: tuple[str, ...], side: int, name: str) -> dict[str, Any] | None:
    """Count for each class how often it was named right, and what else it was named."""
    mine = (out.domain == side) & (out.label >= 0) & (out.label < len(classes))
    if not bool(mine.any()):
        return None
    counts = confusion(out.logits[mine].argmax(1), out.label[mine], classes=len(classes))
    rows = []
    for place in counts.sum(1).argsort(descending=True, stable=True).tolist()[:CLASSES]:
        row, total = counts[place].clone(), int(counts[place].sum())
        if total == 0:
            continue
        right, row[place] = int(row[place]), 0
        others = [(classes[other], int(row[other])) for other in row.argsort(descending=True, stable=True).tolist()[:3]]
        taken = ", ".join(f"{other} ({count})" for other, count in others if count > 0)
        rows.append([classes[place], f"{total:,}", f"{100 * right / total:.1f} %", taken])
    more = f" The {CLASSES} most frequent of {len(classes)}." if len(classes) > CLASSES else ""
    return {
        "title": f"Classes in the {name}" if name else "Classes",
        "note": f"How often the pictures of each class were named right, and what else they were named.{more}",
        "queries": [],
        "table": {"head": ["class", "pictures", "right", "also named"], "rows": rows},
    }


def _map(out: Outputs, classes: tuple[str, ...]) -> str:
    """Draw the features on their two main axes, as an `<svg>` element."""
    from matplotlib.figure import Figure

    few = torch.from_numpy(np.unique(np.linspace(0, len(out.row) - 1, MAPPED).astype(np.int64)))
    points, label, domain = _flat(out.features[few]), out.label[few], out.domain[few]
    named = torch.where((label < 0) | (label >= len(classes)), out.logits[few].argmax(1), label)
    shown = torch.bincount(named, minlength=len(classes)).argsort(descending=True, stable=True)[:COLOURED].tolist()
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    colours = dict(zip(shown, _colours(len(shown)), strict=True))
    for place in [*shown, -1]:
        for side, mark in MARKS.items():
            mine = (domain == side) & ((named == place) if place >= 0 else ~torch.isin(named, torch.tensor(shown)))
            x, y = points[mine].T.tolist()
            label_of = classes[place] if place >= 0 and side == SOURCE else "_"
            axes.scatter(x, y, s=16, marker=mark, color=colours.get(place, INK), alpha=0.7, linewidth=0, label=label_of)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _colours(count: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    more = [to_hex(colormaps["tab20"](place)) for place in range(20)]
    return [*COLOURS, *more][:count]


def _flat(features: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
    """Bring features to their two main axes."""
    spread = features.double() - features.double().mean(0)
    axes = torch.linalg.eigh(spread.T @ spread).eigenvectors
    last = axes.shape[1]
    flat: Tensor = spread @ axes[:, last - 2 :].flip(1)
    return flat.float()


def _wrong(data: ClassData, out: Outputs) -> list[dict[str, Any]]:
    """Show the pictures that were named wrong with the most confidence, of the target where there is one."""
    side = TARGET if len(data.sides.target) else SOURCE
    sure, guess = out.logits.softmax(1).max(1)
    wrong = (out.domain == side) & (out.label >= 0) & (out.label != guess)
    order: Int[Tensor, " k"] = (sure * wrong).argsort(descending=True, stable=True)[: min(WORST, int(wrong.sum()))]
    cards = []
    for place in order.tolist():
        row = int(out.row[place])
        right = str(data.source.row(row).fields.get("label"))
        shown = f"named {data.spec.classes[int(guess[place])]}, is {right}"
        cards.append({"image": _thumbnail(data, row), "caption": shown, "score": float(sure[place]), "right": False})
    if not cards:
        return []
    note = "The pictures that were named wrong with the greatest chance; the number is that chance."
    query = {"title": "", "note": "", "found": cards, "query": ""}
    return [{"title": "The surest mistakes", "note": note, "queries": [query]}]


def _thumbnail(data: ClassData, row: int) -> str:
    try:
        pixels = decode(data.source.picture(row), size=160, crop="center")
    except BadPicture:
        return ""
    return data_uri(pixels.permute(1, 2, 0).numpy())
