"""Explanations drawn: the picture, the picture with its heat map, and the words shaded by their weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.data.images import BadPicture, decode
from diptych.explain.explanation import Explanation, explain
from diptych.report.page import data_uri
from diptych.tasks.data import TaskData
from diptych.tasks.pair_data import PairData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN, SHOWN_LARGE = 4, 2  # pictures explained on a page; fewer where a model of large ones takes a second for each
LARGE = 128  # pixels
INK, SOFT, WARM = "#101828", "#667085", (0.88, 0.11, 0.28)
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei", "SimHei")
_WIDTH, _LINE, _SMALL = 9.0, 0.42, 1.7  # inches: of the whole, of a line of words, of the map of a word
_ACROSS = 6  # maps of words side by side
_LONGEST = 3.0  # sides of a drawn picture to each other: beyond it would fill the page


def overlay(picture: UInt8[np.ndarray, "h w 3"], heat: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Lay a heat map over a picture that is darkened where there is none."""
    from matplotlib import colormaps

    colours = colormaps["inferno"](0.15 + 0.85 * heat)[..., :3]
    share = (0.35 + 0.4 * heat)[..., None]
    mixed = picture * (1 - share) + 255 * colours * share
    drawn: UInt8[np.ndarray, "h w 3"] = mixed.round().astype(np.uint8)
    return drawn


def draw_why(out: Path, found: Explanation, *, proportions: float = 1.0) -> Path:
    """Draw an explanation as one picture file.

    Args:
        out: where to; the ending tells the format: .png, .jpg, .pdf, .svg.
        found: what to draw.
        proportions: height by width of the picture before it was made square.

    Returns:
        Where it is.

    Raises:
        UserError: when it cannot be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tall = min(max(proportions, 1 / _LONGEST), _LONGEST) * _WIDTH / 2
    parts = found.parts()
    below = math.ceil(len(parts) / _ACROSS) * _SMALL
    lines = 1 + math.ceil(sum(len(word) + 2 for word, _ in found.words) / 62)
    height = tall + 0.6 + _LINE * lines + below
    figure = Figure(figsize=(_WIDTH, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    title = f"{found.answers[0][0]}, " if found.answers else ""
    title += f"{found.unit} {found.score:.3f}"
    figure.text(0.02, 1 - 0.42 / height, title, fontsize=15, color=INK, weight="bold", family=_fonts())
    how = found.method if found.method == found.word_method else f"{found.method}, words by {found.word_method}"
    figure.text(0.98, 1 - 0.42 / height, how, fontsize=10, color=SOFT, ha="right")
    bottom = (_LINE * lines + below) / height
    for place, image in enumerate((found.picture, overlay(found.picture, found.heat))):
        axes = figure.add_axes((0.02 + 0.485 * place, bottom, 0.475, tall * 0.95 / height))
        axes.imshow(image, aspect="auto", interpolation="lanczos" if min(image.shape[:2]) > 96 else "nearest")
        axes.set_axis_off()
    row = figure.add_axes((0.02, below / height, 0.96, bottom - below / height))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that no font here has is drawn as a box
        _write(row, found.words)
        _each_part(figure, found.picture, parts, height)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(out)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot write {out}: {str(error).splitlines()[0]}; give for example -o why.png") from None
    return out


def _write(axes: Axes, words: Sequence[tuple[str, float]]) -> None:
    """Set words one after another, line by line, each on a ground as dark as its weight."""
    axes.set_axis_off()
    box = axes.get_window_extent()
    axes.set_xlim(0, box.width)
    axes.set_ylim(-box.height, 0)
    line = _LINE * axes.figure.dpi
    x, y = 8.0, -line * 0.75
    for word, weight in words:
        ground = {"boxstyle": "round,pad=0.25", "facecolor": (*WARM, 0.75 * weight), "edgecolor": "none"}
        text = axes.text(x, y, word, fontsize=13, color=INK, va="center", bbox=ground, family=_fonts())
        width = text.get_window_extent().width
        if x > 8 and x + width > box.width - 8:
            x, y = 8.0, y - line
            text.set_position((x, y))
        x += width + 15


def _each_part(
    figure: Figure,
    picture: UInt8[np.ndarray, "h w 3"],
    parts: Sequence[tuple[str, Float32[np.ndarray, "h w"]]],
    height: float,
) -> None:
    """Draw the map of each word or answer below, where each has its own."""
    rows = math.ceil(len(parts) / _ACROSS)
    for number, (name, heat) in enumerate(parts):
        row, column = divmod(number, _ACROSS)
        left, bottom = 0.02 + column * 0.96 / _ACROSS, ((rows - 1 - row) * _SMALL + 0.05) / height
        axes = figure.add_axes((left, bottom, 0.94 / _ACROSS, (_SMALL - 0.35) / height))
        axes.imshow(overlay(picture, heat), aspect="auto")
        axes.set_title(name, fontsize=10, color=INK, family=_fonts(), pad=3)
        axes.set_axis_off()


def _fonts() -> list[str]:
    """Return the fonts that are there, with the letters of more scripts the further on."""
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in there]


def why_sections(data: TaskData, model: Model, split: str) -> list[dict[str, Any]]:
    """Lay out why some pictures of a split meet their own texts, for the page of a run.

    Args:
        data: what pictures and texts are taken from.
        model: with pictures and texts in one space; another gives no section.
        split: dev or train are taken where it is empty.
    """
    if not isinstance(model, PairEncoder) or not isinstance(data, PairData):
        return []
    galleries = (data.gallery(name) for name in (split, "dev", "train"))
    gallery = next((found for found in galleries if found is not None), None)
    if gallery is None:
        return []
    shown = SHOWN if data.spec.image_size <= LARGE else SHOWN_LARGE
    rows = gallery.rows[:: max(1, len(gallery.rows) // shown)][:shown]
    queries = list(_explained(data, model, [int(row) for row in rows]))
    note = "What in the picture speaks for its own text, and by which words: the warmer, the more."
    return [{"title": "Why", "note": note, "queries": queries}] if queries else []


def _explained(data: PairData, model: Model, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    training, method = model.training, "auto" if data.spec.image_size <= LARGE else "occlusion"
    model.eval()
    for row in rows:
        text = next(iter(data.source.row(row).captions), "")
        try:
            pixels = decode(data.source.picture(row), size=data.spec.image_size, crop=data.crop)
            found = explain(model, data.tokenizer, data.spec, pixels, text, method=method, steady=False)
        except (BadPicture, UserError):
            continue
        yield {
            "title": "",
            "note": f"{found.unit} {found.score:.3f}",
            "query": "",
            "words": [{"text": word, "weight": round(weight, 3)} for word, weight in found.words],
            "found": [],
            "pictures": [data_uri(found.picture), data_uri(overlay(found.picture, found.heat))],
        }
    model.train(training)
