"""Retrieval as a judge: pictures and texts of a gallery find each other."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.metrics.retrieval import Retrieval, retrieval

MONITOR = "mean_r@1"


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
    device = next(model.parameters()).device
    sides: dict[str, list[Tensor]] = {"image": [], "image_id": [], "text": [], "text_id": []}
    sentences: list[bytes] = []
    was_training = model.training
    model.eval()
    for batch in batches:
        moved = batch.to(device)
        if batch.tokens is None:
            side, vectors = "image", model.encode_image(moved)
        else:
            side, vectors = "text", model.encode_text(moved)
            kept = batch.need("token_mask")
            sentences += [row[real].numpy().tobytes() for row, real in zip(batch.tokens, kept, strict=True)]
        sides[side].append(vectors.float().cpu())
        sides[f"{side}_id"].append(batch.need("pair_id").cpu())
    model.train(was_training)
    if not sides["image"] or not sides["text"]:
        raise UserError("nothing to score: the split has no readable picture or no caption")
    numbers: dict[bytes, int] = {}
    keys = torch.tensor([numbers.setdefault(sentence, len(numbers)) for sentence in sentences])
    image, image_id, text, text_id = (torch.cat(values) for values in sides.values())
    return image, image_id, text, text_id, keys


def retrieve(model: Model, batches: Iterable[Batch]) -> Retrieval:
    """Score retrieval both ways; a caption that several pictures share counts for each of them."""
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
