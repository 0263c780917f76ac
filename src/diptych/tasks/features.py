"""Features: what frozen towers made of a source, computed once and read in the place of pixels and words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diptych.core.batch import DataSpec, States
from diptych.core.model import Model
from diptych.core.runtime import pick_device, rank
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.frozen import FeatureStore, image_features, text_features
from diptych.encoders.offers import Sighted, Worded


@dataclass(frozen=True, slots=True)
class Features:
    """Stored outputs of frozen towers, by the rows of one source; None where a tower is not frozen.

    Args:
        image: of pictures.
        mirrored: of the same pictures mirrored, a second view to learn from.
        text: of captions, in the order of the rows and of each row's captions.
        first: for each row of the source, where its captions begin in `text`.
        problems: pictures that could not be read.
    """

    image: FeatureStore | None = None
    mirrored: FeatureStore | None = None
    text: FeatureStore | None = None
    first: Int64[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    problems: tuple[Problem, ...] = ()

    def readable(self, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
        """Leave out the rows whose picture could not be read."""
        return rows if self.image is None else rows[np.isin(rows, self.image.readable)]

    def of_images(self, rows: Int64[np.ndarray, " k"]) -> States | None:
        """Return what the image tower made of some rows."""
        return None if self.image is None or len(rows) == 0 else self.image.states(rows)

    def of_mirrored(self, rows: Int64[np.ndarray, " k"]) -> States | None:
        """Return what the image tower made of some rows' pictures mirrored."""
        return None if self.mirrored is None or len(rows) == 0 else self.mirrored.states(rows)

    def of_texts(self, rows: Int64[np.ndarray, " k"], places: Int64[np.ndarray, " k"]) -> States | None:
        """Return what the text tower made of the caption at a place of each row."""
        return None if self.text is None or len(rows) == 0 else self.text.states(self.first[rows] + places)


def compute_features(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    rows: Int64[np.ndarray, " n"],
    *,
    still: bool = True,
    device: str = "auto",
) -> Features:
    """Ask the frozen towers of a model once, as far as the cache does not know the answers.

    Args:
        source: pictures with captions.
        model: its towers are looked at where it shows them.
        tokenizer: of the text tower.
        spec: the data the model was built for.
        rows: those that will be used.
        still: whether pictures are seen as they are; random crops cannot be kept.
        device: where to compute.
    """
    image_tower = model.image_tower if isinstance(model, Sighted) and model.image_tower.frozen and still else None
    text_tower = model.text_tower if isinstance(model, Worded) and model.text_tower.frozen else None
    if not isinstance(model, Sighted | Worded) or (image_tower is None and text_tower is None):
        return Features()
    place, reads = pick_device(device), model.reads()
    image = mirrored = text = None
    first = np.zeros(0, dtype=np.int64)
    with _bar() as bar:
        if image_tower is not None:
            tower, keep = image_tower.to(place), "tokens" if reads.grid else "summary"
            image = image_features(tower, source, rows, keep=keep, progress=_shown(bar, "pictures"))
            if reads.mirrored:
                shown = _shown(bar, "mirrored pictures")
                mirrored = image_features(tower, source, rows, keep=keep, mirror=True, progress=shown)
        if text_tower is not None:
            counts = np.zeros(len(source), dtype=np.int64)
            counts[rows] = [len(source.row(row).captions) for row in rows.tolist()]
            first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
            text = text_features(
                text_tower.to(place),
                tokenizer,
                list(source.texts(rows)),
                context=spec.context,
                keep="tokens" if reads.words else "summary",
                progress=_shown(bar, "captions"),
            )
    return Features(image, mirrored, text, first, () if image is None else tuple(image.problems))


def _bar() -> Progress:
    columns = (TextColumn("features of {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, disable=rank() != 0, console=Console(stderr=True))


def _shown(bar: Progress, name: str) -> Callable[[int, int], None]:
    task = bar.add_task(name, total=None)

    def show(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)

    return show
