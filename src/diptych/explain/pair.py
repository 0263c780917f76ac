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
from diptych.explain.maps import candidates, picture_map, resized, shifted, token_map, unit
from diptych.explain.occlusion import Values, without_parts, without_words
from diptych.explain.passing import read, see
from diptych.metrics.explain import first_pixels

METHODS = ("auto", "gradcam", "hirescam", "relevance", "rollout", "occlusion", "random")
SHARES = (0.1, 0.3)
"""Of the pixels, taken away or left alone to see whether a map tells what matters."""

CHANCES = 3
"""Random maps that any other should beat."""

SHIFT = 1 / 16
"""Of the side of a picture, by which views of it are shifted."""

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
    steady: bool = True,
) -> Evidence:
    """Say which places of a picture and which tokens of a text make their cosine.

    Args:
        model: in evaluation mode, with pictures and texts in one space.
        image: uint8 in [0, 255] or float in [0, 1], of the model's size.
        tokens: of the text, without padding.
        content: which of them are words, not marks of begin and end.
        method: one of `METHODS`. "auto" makes every map that the model allows, and weighs each by how much the cosine
            lives by its hottest pixels; words it leaves out one by one.
        against: tokens of other texts; what the picture has in common with them is then no evidence.
        steady: average maps over nine views of the picture, shifted by a sixteenth; better, and takes nine times as
            long. A coarse grid tells the more of a place, the more ways it was laid over it.

    Raises:
        UserError: for another method, or one that cannot see into this model.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if not isinstance(model, PairEncoder):
        raise UserError("only a system that has pictures and texts in one space can be explained so: clip is one")
    with torch.no_grad():
        text, picture = _texts(model, tokens[None]), model.encode_image(Batch(image=image[None]))
        score = float((picture * text).sum())
        others = [_texts(model, other[None]) for other in against]
        wanted = text - torch.stack(others).mean(0) if others else text
    if method == "auto" and not isinstance(model, Towered):
        method = "occlusion"
    if method == "random":
        return Evidence(torch.rand(_GRID, _GRID), torch.rand(len(tokens)) * content.cpu(), score, method, method)
    word_method = "occlusion" if method == "auto" else method
    if method == "occlusion":
        grid = without_parts(lambda images: model.encode_image(Batch(image=images)) @ wanted.T, image)[0]
    else:
        grid, method = _looked_into(model, image, wanted, method, steady=steady)
    if word_method == "occlusion":
        words = without_words(lambda texts: (_texts(model, texts) * picture).sum(1), tokens, content)
    else:
        words = _of_text(model, tokens, picture, word_method) * content
    return Evidence(grid.cpu(), words.cpu(), score, method, word_method)


def _texts(encoder: PairEncoder, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
    return encoder.encode_text(Batch(tokens=tokens, token_mask=torch.ones_like(tokens, dtype=torch.bool)))


@torch.enable_grad()
def _looked_into(
    model: PairEncoder, image: Shaped[Tensor, "c h w"], wanted: Float[Tensor, "1 d"], method: str, *, steady: bool
) -> tuple[Float[Tensor, "s s"], str]:
    """Make a map of what happened inside, the mean over small shifts of the picture.

    Returns:
        The map, and the method that it is of, where that was left open.
    """
    towered, side = _towered(model, method), image.shape[-1]
    step = max(1, round(side * SHIFT)) if steady else 0
    offsets = (-step, 0, step) if steady else (0,)
    sums: dict[str, Tensor] = {}
    for down in offsets:
        for right in offsets:
            for name, grid in _views(model, towered, shifted(image, down, right), wanted, method).items():
                back = shifted(resized(unit(grid), side)[None], -down, -right)[0]
                sums[name] = sums[name] + back if name in sums else back
    if method != "auto":
        return sums[method], method
    with torch.no_grad():

        def along(images: Tensor) -> Tensor:  # not mirrored, where the model would read that too: half the time
            return model.encode_image(Batch(image_states=towered.image_tower(images))) @ wanted.T

        sums["occlusion"] = resized(without_parts(along, image)[0], side)
        return _weighed(along, image, sums)


def _views(
    model: PairEncoder, towered: Towered, image: Shaped[Tensor, "c h w"], wanted: Float[Tensor, "1 d"], method: str
) -> dict[str, Float[Tensor, "_ _"]]:
    """Make the maps of one view; what a model reads of the mirrored picture is turned back and added."""
    passes = [see(towered.image_tower, image)]
    if towered.reads().mirrored:
        passes.append(see(towered.image_tower, image.flip(-1)))
    mirrored = passes[1].states if len(passes) > 1 else None
    vector = model.encode_image(Batch(image_states=passes[0].states, mirrored_states=mirrored))
    score = (vector * wanted).sum()
    found = [
        candidates(one, score) if method == "auto" else {method: picture_map(one, score, method)} for one in passes
    ]
    return {name: grid + found[1][name].flip(-1) if len(found) > 1 else grid for name, grid in found[0].items()}


def _weighed(
    along: Values, image: Shaped[Tensor, "c h w"], maps: dict[str, Float[Tensor, "s s"]]
) -> tuple[Float[Tensor, "s s"], str]:
    """Average maps, each by the square of what it proves to be worth beyond chance.

    A map is worth what its hottest pixels alone still score above all the others without them.

    Returns:
        The mean, and which map has the largest part in it; all have the same where none beats random maps.
    """
    side = image.shape[-1]
    blank = image.flatten(1).median(1).values.view(1, -1, 1, 1)
    tried = []
    for grid in (*maps.values(), *(_chance(seed, side).to(image.device) for seed in range(CHANCES))):
        first = first_pixels(grid, SHARES).unsqueeze(1)
        tried += [torch.where(first, image, blank), torch.where(first, blank, image)]
    found = along(torch.cat(tried)).view(-1, 2, len(SHARES))
    worth = (found[:, 0] - found[:, 1]).mean(1)
    worth = (worth[:-CHANCES] - worth[-CHANCES:].mean()).clamp(min=0).square()
    worth = worth if bool(worth.any()) else torch.ones_like(worth)
    each = torch.stack([unit(grid) for grid in maps.values()])
    most = list(maps)[int(worth.argmax())]
    return (each * worth[:, None, None]).sum(0), f"{len(maps)} maps, most by {most}"


def _chance(seed: int, side: int) -> Float[Tensor, "s s"]:
    """Make a map that knows nothing, the same each time."""
    return resized(torch.rand(_GRID, _GRID, generator=torch.Generator().manual_seed(seed)), side)


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
