"""A map for each thing that a model tells of a picture, the words of a caption or answers, by what it looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import UserError, unknown
from diptych.core.model import Model
from diptych.encoders.offers import Sighted
from diptych.explain.crossing import crossings, relevance_between
from diptych.explain.gradcam import cells_for
from diptych.explain.maps import CAMS, square
from diptych.explain.occlusion import CELLS, without_parts
from diptych.explain.pair import METHODS

Told: TypeAlias = Callable[[Batch], Tensor]
"""From n pictures, as pixels or as what the tower made of them, to the log-probability of each thing told, (n, s)."""


def maps_of(told: Told, model: Model, image: Shaped[Tensor, "c h w"], *, method: str) -> Float[Tensor, "s i j"]:
    """Make one map for each thing told.

    Args:
        told: what is explained.
        model: that tells it.
        image: of the model's size, on its device.
        method: "occlusion" covers one part of the picture after another; "gradcam" and "hirescam" follow the gradient
            to the cells of the image tower; "relevance" goes through the attention between a question and the cells;
            "random"; "auto" is what `meant` says.

    Returns:
        Evidence of each place, >= 0: by occlusion the fall of the log-probability in nats.

    Raises:
        UserError: for another method, or one that cannot see into this model.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    method = meant(model, method)
    if method in (*CAMS, "relevance"):
        return _by_cells(told, model, image, method)
    with torch.no_grad():
        if method == "random":
            return torch.rand(told(Batch(image=image[None])).shape[1], CELLS, CELLS)
        if method == "occlusion":
            return without_parts(lambda images: told(Batch(image=images)), image).cpu()
    raise UserError(
        f"{method} follows attention inside two towers that meet in a cosine, which {type(model).__name__} has not: "
        "method=occlusion and method=gradcam explain it"
    )


def meant(model: Model, method: str) -> str:
    """Return what "auto" stands for: relevance where words look at cells by attention alone, else occlusion.

    Through attention the evidence of trained answerers points into the thing more often (docs/explaining.md).
    """
    if method != "auto":
        return method
    return "relevance" if len(crossings(model)) == 1 else "occlusion"


def _by_cells(told: Told, model: Model, image: Shaped[Tensor, "c h w"], method: str) -> Float[Tensor, "s i j"]:
    if not isinstance(model, Sighted):
        raise UserError(f"{type(model).__name__} has no image tower for {method} to look at: use method=occlusion")
    with torch.no_grad():
        states = model.image_tower(image[None])

    def values(cells: Tensor) -> Tensor:
        return told(Batch(image_states=replace(states, tokens=cells)))[0]

    if method == "relevance":
        found = relevance_between(model, values, states.tokens)
    else:
        found = cells_for(values, states.tokens, cam=CAMS[method])[:, 0]
    return torch.stack([square(each) for each in found]).detach().float().cpu()
