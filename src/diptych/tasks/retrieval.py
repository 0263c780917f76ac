"""Retrieval as a judge: pictures and texts of a gallery find each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder, PairScorer
from diptych.metrics.retrieval import Retrieval, retrieval, retrieval_of_scores

MONITOR = "mean_r@1"


ROWS = 256
"""Pictures scored together with one batch of texts."""

Side = TypeVar("Side", Tensor, States)


@dataclass(frozen=True, slots=True)
class Sides(Generic[Side]):
    """What a model makes of a gallery, in pieces, on the CPU: both sides, whose picture each row is, and `key`.

    `key` is a number for each sentence that is the same for the same sentence.
    """

    image: list[Side]
    image_id: Int[Tensor, " m"]
    text: list[Side]
    text_id: Int[Tensor, " n"]
    key: Int[Tensor, " n"]


@torch.no_grad()
def encode(model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Encode the pictures and texts of a gallery.

    Returns:
        Image vectors, their picture ids, text vectors, their picture ids, and a number for each sentence that is the
        same for the same sentence; all on the CPU.

    Raises:
        UserError: when the model has no space that both share, or there are no pictures or no texts.
    """
    if not isinstance(model, PairEncoder):
        raise UserError(f"{type(model).__name__} does not put pictures and texts in one space, so it has no retrieval")
    found = _both_sides(
        model,
        batches,
        lambda batch: model.encode_image(batch).float().cpu(),
        lambda batch: model.encode_text(batch).float().cpu(),
    )
    return torch.cat(found.image), found.image_id, torch.cat(found.text), found.text_id, found.key


@torch.no_grad()
def score_all(model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score every picture of a gallery with every text by a model that looks at both together, block by block.

    Returns:
        A matrix with a row a picture and a column a text, the picture ids of its rows and columns, and a number for
        each sentence that is the same for the same sentence; all on the CPU.

    Raises:
        UserError: when the model is no `PairScorer`, or there are no pictures or no texts.
    """
    if not isinstance(model, PairScorer):
        raise UserError(f"{type(model).__name__} does not score a picture and a text together; sgraf does")
    found = _both_sides(
        model,
        batches,
        lambda batch: model.image_parts(batch).map(Tensor.cpu),
        lambda batch: model.text_parts(batch).map(Tensor.cpu),
    )
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    scores = torch.empty(len(found.image_id), len(found.text_id))
    row = 0
    for image in (piece for side in found.image for piece in _pieces(side.map(lambda part: part.to(device)))):
        column = 0
        for text in found.text:
            block = model.score(image, text.map(lambda part: part.to(device)))
            scores[row : row + len(block), column : column + block.shape[1]] = block.float()
            column += block.shape[1]
        row += len(image.summary)
    model.train(was_training)
    return scores, found.image_id, found.text_id, found.key


def _pieces(side: States) -> Iterator[States]:
    for start in range(0, len(side.summary), ROWS):
        yield side.map(lambda part, start=start: part[start : start + ROWS])  # type: ignore[misc]


def _both_sides(
    model: Model, batches: Iterable[Batch], image: Callable[[Batch], Side], text: Callable[[Batch], Side]
) -> Sides[Side]:
    """Go through a gallery, the pictures and then the texts.

    Raises:
        UserError: when there are no pictures or no texts.
    """
    device = next(model.parameters()).device
    sides: tuple[list[Side], list[Side]] = ([], [])
    ids: tuple[list[Tensor], list[Tensor]] = ([], [])
    sentences: list[bytes] = []
    was_training = model.training
    model.eval()
    for batch in batches:
        moved, of_text = batch.to(device), batch.tokens is not None
        found = (text if of_text else image)(moved)
        sides[of_text].append(found)
        ids[of_text].append(batch.need("pair_id").cpu())
        if batch.tokens is not None:
            kept = batch.need("token_mask")
            sentences += [row[real].cpu().numpy().tobytes() for row, real in zip(batch.tokens, kept, strict=True)]
    model.train(was_training)
    if not sides[0] or not sides[1]:
        raise UserError("nothing to score: the split has no readable picture or no caption")
    numbers: dict[bytes, int] = {}
    keys = torch.tensor([numbers.setdefault(sentence, len(numbers)) for sentence in sentences])
    return Sides(sides[0], torch.cat(ids[0]), sides[1], torch.cat(ids[1]), keys)


def retrieve(model: Model, batches: Iterable[Batch]) -> Retrieval:
    """Score retrieval both ways; a caption that several pictures share counts for each of them.

    A model that looks at a picture and a text together is judged by all its scores, any other by its vectors.
    """
    if isinstance(model, PairScorer):
        scores, image_id, text_id, keys = score_all(model, batches)
        shown = torch.isin(text_id, image_id)
        return retrieval_of_scores(scores[:, shown], image_id=image_id, text_id=text_id[shown], text_key=keys[shown])
    image, image_id, text, text_id, keys = encode(model, batches)
    shown = torch.isin(text_id, image_id)  # captions of pictures that could not be read have no right answer
    return retrieval(image, text[shown], image_id=image_id, text_id=text_id[shown], text_key=keys[shown])


def score(model: Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the retrieval scores by flat names, `mean_r@1`, the mean of both directions, and how many `texts`."""
    found = retrieve(model, batches)
    flat = {f"image_to_text/{name}": value for name, value in found["image_to_text"].items()}
    flat |= {f"text_to_image/{name}": value for name, value in found["text_to_image"].items()}
    mean = (flat["image_to_text/r@1"] + flat["text_to_image/r@1"]) / 2
    return flat | {MONITOR: mean, "texts": float(found["pairs"])}
