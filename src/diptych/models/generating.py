"""What systems that draw are asked by users: pictures for texts, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import ImageGenerator, Model
from diptych.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL import Image

DRAWN = 64
"""Pictures that are drawn at a time."""


@torch.inference_mode()
def pictures_for(
    model: Model, tokenizer: Tokenizer, spec: DataSpec, texts: Sequence[str] | str, *, count: int, seed: int
) -> list[list[Image.Image]]:
    """Draw several pictures for each text.

    Args:
        model: one that draws.
        tokenizer: of its texts.
        spec: it was built for.
        texts: one or many; what is longer than the model reads is cut.
        count: pictures for each.
        seed: of chance; a text gets the same pictures whatever else is asked for.

    Raises:
        UserError: for a model that does not draw, an empty text, or nothing to draw.
    """
    from PIL import Image

    if not isinstance(model, ImageGenerator):
        raise cannot(model, ImageGenerator)
    device = next(model.parameters()).device
    if count < 1 or not texts:
        raise UserError("there is nothing to draw: give a text, and a count of at least 1")
    told = []
    for text in [texts] if isinstance(texts, str) else texts:
        if not text.strip():
            raise UserError("there is nothing to draw for an empty text; say what the picture should show")
        tokens, mask = tokenizer([text], spec.context)
        drawn: list[Image.Image] = []
        random = torch.Generator().manual_seed(seed)
        for start in range(0, count, DRAWN):
            rows = min(DRAWN, count - start)
            batch = Batch(tokens=tokens.expand(rows, -1), token_mask=mask.expand(rows, -1)).to(device)
            drawn += [Image.fromarray(one) for one in pixels(model.draw(batch, random)).numpy()]
        told.append(drawn)
    return told


def pixels(pictures: Tensor) -> UInt8[Tensor, "b h w 3"]:
    """Round pictures in [0, 1] to bytes, channels last."""
    return (pictures.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
