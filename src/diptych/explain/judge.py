"""Explanations judged by numbers on the built-in scenes, which know where each thing is and which words tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.data.scene_graph import COLOURS
from diptych.data.scene_shapes import SHAPES
from diptych.data.scenes import Scenes
from diptych.data.tokenizer import Tokenizer
from diptych.explain.answer import answers_told
from diptych.explain.caption import words_told
from diptych.explain.explanation import explain
from diptych.explain.words import read_by
from diptych.metrics.explain import area_under, inside_share, points_into, ranked_above, step_by_step
from diptych.models.answering import AnswerModel
from diptych.models.captioning import CaptionModel

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
        question: about the colour of that thing; empty where another one has its shape.
        answer: to the question.
    """

    picture: UInt8[np.ndarray, "h w 3"]
    text: str
    box: tuple[float, float, float, float]
    caption: str
    question: str = ""
    answer: str = ""


def asked(source: Scenes, count: int, *, questions: bool = False) -> Iterator[Asked]:
    """Take pictures with several things from the test split, and of each one thing in turn.

    Args:
        source: of which the pictures have the model's size.
        count: how many pictures at most.
        questions: only those with a question.

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
        alone = sum(other["shape"] == thing["shape"] for other in things) == 1
        if questions and not alone:
            continue
        yield Asked(
            picture=source.picture(int(index)),
            text=f"a {thing['size']} {thing['colour']} {thing['shape']}",
            box=tuple(thing["box"]),
            caption=source.row(int(index)).captions[0],
            question=f"what colour is the {thing['shape']}?" if alone else "",
            answer=thing["colour"],
        )
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
        model: in evaluation mode, trained on scenes: has pictures and texts in one space, writes or answers.
        tokenizer: of its text side.
        spec: facts it was built for.
        cases: what to explain; with questions for a model that answers.
        method: as `explain` takes it.
        against: as `explain` takes it; for a model with one space alone.

    Returns:
        `pointing`: how often the hottest pixel lies in the box of what was named; `inside`: share of the heat in the
        box; `deletion`, `insertion`: mean score, the cosine with the name or the log-probability of the text or answer
        in nats, while the picture goes or comes, hottest pixels first (deletion is the better the lower); `words`: how
        often a word that names a thing, or asks for a colour, weighs more than one that does not, in the complete
        caption or the question.
    """
    found: dict[str, list[float]] = {name: [] for name in ("pointing", "inside", "deletion", "insertion", "words")}
    answers = isinstance(model, AnswerModel)
    for case in cases:
        pixels = torch.from_numpy(case.picture.copy()).permute(2, 0, 1)
        held = (model, tokenizer, spec, pixels)
        text, answer = (case.question, case.answer) if answers else (case.text, "")
        one = explain(*held, text, method=method, against=against, answer=answer)
        heat, score = torch.from_numpy(one.heat), _scoring(model, tokenizer, spec, text, answer)
        found["pointing"].append(points_into(heat, case.box))
        found["inside"].append(inside_share(heat, case.box))
        for name, insert in (("deletion", False), ("insertion", True)):
            found[name].append(area_under(score(step_by_step(pixels, heat, insert=insert))))
        told = one.words if answers else explain(*held, case.caption, method=method, steady=False).words
        naming = [word.strip(",.?") in (*SHAPES, *COLOURS, *SIZES, "colour") for word, _ in told]
        share = ranked_above(torch.tensor([weight for _, weight in told]), naming)
        found["words"] += [] if share is None else [share]
    return {name: mean(values) for name, values in found.items() if values}


def _scoring(
    model: Model, tokenizer: Tokenizer, spec: DataSpec, text: str, answer: str
) -> Callable[[Shaped[Tensor, "n c h w"]], Float[Tensor, " n"]]:
    """Return what scores pictures: by the cosine with a text, or the log-probability of the text or the answer."""
    device = next(model.parameters()).device
    tokens = read_by(tokenizer, text, spec.context)[0].to(device)

    @torch.no_grad()
    def score(pictures: Tensor) -> Tensor:
        batch = Batch(image=pictures.to(device))
        if isinstance(model, CaptionModel):
            found = words_told(model, tokenizer, text, context=spec.context)(batch).sum(1)
        elif isinstance(model, AnswerModel):
            found = answers_told(model, tokens, torch.tensor([spec.answers.index(answer)], device=device))(batch)[:, 0]
        else:
            assert isinstance(model, PairEncoder)
            read = model.encode_text(Batch(tokens=tokens[None], token_mask=torch.ones_like(tokens[None]).bool()))
            found = (model.encode_image(batch) @ read.T)[:, 0]
        return found.float().cpu()

    return score
