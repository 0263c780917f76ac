"""Why a picture met a text: evidence on the picture's grid and on the text's tokens, by one of several methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import UserError, unknown
from diptych.core.model import Model, PairEncoder
from diptych.encoders.offers import Towered
from diptych.explain.maps import candidates, picture_map, resized, token_map
from diptych.explain.occlusion import without_parts, without_words
from diptych.explain.passing import read, see
from diptych.metrics.explain import first_pixels

METHODS = ("auto", "gradcam", "hirescam", "relevance", "rollout", "occlusion", "random")
SHARES = (0.05, 0.1, 0.2, 0.4)
"""Of the pixels, taken away or left alone to see whether a map tells what matters."""

_GRID = 8  # cells of a side of a random map


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a picture met a text.

    Args:
        grid: evidence of each place of the picture, on a grid of the method's own.
        tokens: evidence of each token of the text, 0 for marks.
        score: the cosine that is explained.
        method: used for the picture.
        word_method: used for the text.
    """

    grid: Float[Tensor, "i j"]
    tokens: Float[Tensor, " t"]
    score: float
    method: str
    word_method: str


def explain_pair(
    model: Model,
    image: Shaped[Tensor, "c h w"],
    tokens: Int[Tensor, " t"],
    content: Bool[Tensor, " t"],
    *,
    method: str = "auto",
    against: Sequence[Int[Tensor, " _"]] = (),
) -> Evidence:
    """Say which places of a picture and which tokens of a text make their cosine.

    Args:
        model: in evaluation mode, with pictures and texts in one space.
        image: uint8 in [0, 255] or float in [0, 1], of the model's size.
        tokens: of the text, without padding.
        content: which of them are words, not marks of begin and end.
        method: one of `METHODS`. "auto" makes every map that gradients allow, and keeps the one whose hottest pixels
            matter most to the cosine; words it leaves out one by one.
        against: tokens of other texts; what the picture has in common with them is then no evidence.

    Raises:
        UserError: for another method, or one that cannot see into this model.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if not isinstance(model, PairEncoder):
        raise UserError("only a system that has pictures and texts in one space can be explained so: clip is one")
    with torch.no_grad():
        text, picture = _text(model, tokens), model.encode_image(Batch(image=image[None]))
        score = float((picture * text).sum())
        others = [_text(model, other) for other in against]
        wanted = text - torch.stack(others).mean(0) if others else text
    if method == "auto" and not isinstance(model, Towered):
        method = "occlusion"
    if method == "random":
        return Evidence(torch.rand(_GRID, _GRID), torch.rand(len(tokens)) * content.cpu(), score, method, method)
    word_method = "occlusion" if method == "auto" else method
    if method == "occlusion":
        grid = without_parts(model, image, wanted)
    else:
        grid, method = _looked_into(model, image, wanted, method)
    if word_method == "occlusion":
        words = without_words(model, tokens, content, picture)
    else:
        words = _of_text(model, tokens, picture, word_method) * content
    return Evidence(grid.cpu(), words.cpu(), score, method, word_method)


def _text(encoder: PairEncoder, tokens: Int[Tensor, " t"]) -> Float[Tensor, "1 d"]:
    real = torch.ones_like(tokens[None], dtype=torch.bool)
    return encoder.encode_text(Batch(tokens=tokens[None], token_mask=real))


@torch.enable_grad()
def _looked_into(
    model: PairEncoder, image: Shaped[Tensor, "c h w"], wanted: Float[Tensor, "1 d"], method: str
) -> tuple[Float[Tensor, "i j"], str]:
    """Make a map of what happened inside; what a model reads of the mirrored picture is turned back and added.

    Returns:
        The map, and the method that it is of, where that was left open.
    """
    towered = _towered(model, method)
    passes = [see(towered.image_tower, image)]
    if towered.reads().mirrored:
        passes.append(see(towered.image_tower, image.flip(-1)))
    mirrored = passes[1].states if len(passes) > 1 else None
    vector = model.encode_image(Batch(image_states=passes[0].states, mirrored_states=mirrored))
    score = (vector * wanted).sum()
    if method != "auto":
        return _joined([picture_map(one, score, method) for one in passes]), method
    views = [candidates(one, score) for one in passes]
    maps = {name: _joined([view[name] for view in views]) for name in views[0]}
    return _best(model, image, wanted, maps)


def _joined(maps: Sequence[Float[Tensor, "i j"]]) -> Float[Tensor, "i j"]:
    return maps[0] if len(maps) == 1 else maps[0] + maps[1].flip(-1)


@torch.no_grad()
def _best(
    encoder: PairEncoder,
    image: Shaped[Tensor, "c h w"],
    wanted: Float[Tensor, "1 d"],
    maps: dict[str, Float[Tensor, "_ _"]],
) -> tuple[Float[Tensor, "i j"], str]:
    """Choose the map whose hottest pixels alone keep the score up, and without which it falls."""
    blank = image.flatten(1).median(1).values.view(1, -1, 1, 1)
    tried = []
    for grid in maps.values():
        first = first_pixels(resized(grid, image.shape[-1]), SHARES).unsqueeze(1)
        tried += [torch.where(first, image, blank), torch.where(first, blank, image)]
    along = (encoder.encode_image(Batch(image=torch.cat(tried))) * wanted).sum(1).view(len(maps), 2, len(SHARES))
    worth = (along[:, 0] - along[:, 1]).mean(1)
    name = list(maps)[int(worth.argmax())]
    return maps[name], name


@torch.enable_grad()
def _of_text(
    model: PairEncoder, tokens: Int[Tensor, " t"], picture: Float[Tensor, "1 d"], method: str
) -> Float[Tensor, " t"]:
    one = read(_towered(model, method).text_tower, tokens)
    score = (model.encode_text(Batch(text_states=one.states)) * picture).sum()
    return token_map(one, score, method)


def _towered(model: PairEncoder, method: str) -> Towered:
    if not isinstance(model, Towered):
        raise UserError(f"{method} looks into two towers, which this system has not: method=occlusion explains it")
    return model
