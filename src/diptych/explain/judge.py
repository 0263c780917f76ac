"""Explanations judged by numbers on the built-in scenes, which know where each thing is and which words tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.data.scene_graph import COLOURS
from diptych.data.scene_shapes import SHAPES
from diptych.data.scenes import Scenes
from diptych.data.tokenizer import Tokenizer
from diptych.explain.explanation import explain
from diptych.explain.words import read_by
from diptych.metrics.explain import area_under, inside_share, points_into, ranked_above, step_by_step

SIZES = ("small", "large")
OTHERS = tuple(
    f"a {SIZES[number % 2]} {colour} {SHAPES[(number * 3 + turn) % len(SHAPES)]}"
    for turn in range(2)
    for number, colour in enumerate(COLOURS)
)
"""Names of other things, the same for every picture, to tell a thing apart from."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture of several things with the name of one of them.

    Args:
        picture: square pixels.
        text: names one thing, as no other in the picture is called.
        box: of that thing, in pixels: left, top, right, bottom.
        caption: one that tells all that there is.
    """

    picture: UInt8[np.ndarray, "h w 3"]
    text: str
    box: tuple[float, float, float, float]
    caption: str


def asked(source: Scenes, count: int) -> Iterator[Asked]:
    """Take pictures with several things from the test split, and of each one thing in turn.

    Args:
        source: of which the pictures have the model's size.
        count: how many pictures at most.

    Raises:
        UserError: when there is no such picture.
    """
    taken = 0
    for index in np.flatnonzero(source.splits() == 2):
        things = source.row(int(index)).fields["objects"]
        if len(things) < 2:
            continue
        if taken == count:
            return
        thing = things[taken % len(things)]
        text = f"a {thing['size']} {thing['colour']} {thing['shape']}"
        yield Asked(source.picture(int(index)), text, tuple(thing["box"]), source.row(int(index)).captions[0])
        taken += 1
    if not taken:
        raise UserError("no test picture of these scenes has two things to tell apart: ask for scenes:2000")


def judge(
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    cases: Sequence[Asked],
    *,
    method: str,
    against: Sequence[str] = OTHERS,
) -> dict[str, float]:
    """Score one method.

    Args:
        model: in evaluation mode, trained on scenes.
        tokenizer: of its text side.
        spec: facts it was built for.
        cases: what to explain.
        method: as `explain` takes it.
        against: as `explain` takes it.

    Returns:
        `pointing`: how often the hottest pixel lies in the box of what was named; `inside`: share of the heat in the
        box; `deletion`, `insertion`: mean cosine with the name while the picture goes or comes, hottest pixels first
        (deletion is the better the lower); `words`: how often a word that names a thing weighs more than one that
        does not, in the complete caption.
    """
    found: dict[str, list[float]] = {name: [] for name in ("pointing", "inside", "deletion", "insertion", "words")}
    for case in cases:
        pixels = torch.from_numpy(case.picture.copy()).permute(2, 0, 1)
        one = explain(model, tokenizer, spec, pixels, case.text, method=method, against=against)
        heat = torch.from_numpy(one.heat)
        found["pointing"].append(points_into(heat, case.box))
        found["inside"].append(inside_share(heat, case.box))
        text = _text(model, tokenizer, spec, case.text)
        for name, insert in (("deletion", False), ("insertion", True)):
            found[name].append(_curve(model, step_by_step(pixels, heat, insert=insert), text))
        told = explain(model, tokenizer, spec, pixels, case.caption, method=method, steady=False).words
        naming = [word.strip(",.") in (*SHAPES, *COLOURS, *SIZES) for word, _ in told]
        share = ranked_above(torch.tensor([weight for _, weight in told]), naming)
        found["words"] += [] if share is None else [share]
    return {name: mean(values) for name, values in found.items() if values}


@torch.no_grad()
def _text(model: Model, tokenizer: Tokenizer, spec: DataSpec, text: str) -> Tensor:
    assert isinstance(model, PairEncoder)
    tokens = read_by(tokenizer, text, spec.context)[0][None].to(next(model.parameters()).device)
    return model.encode_text(Batch(tokens=tokens, token_mask=torch.ones_like(tokens, dtype=torch.bool)))


@torch.no_grad()
def _curve(model: Model, pictures: Tensor, text: Tensor) -> float:
    assert isinstance(model, PairEncoder)
    vectors = model.encode_image(Batch(image=pictures.to(text.device)))
    return area_under((vectors @ text.T)[:, 0].float().cpu())
