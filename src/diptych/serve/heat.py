"""Pictures that are made here and sent inside an answer: heat maps to lay over a picture, and what a model drew."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float32
from PIL import Image

_OPAQUE = 0.8  # where the evidence is strongest; the picture must still be recognised


def heat_picture(heat: Float32[np.ndarray, "h w"], *, side: int) -> Image.Image:
    """Return a picture that is clear where nothing speaks for the text and warm where most does.

    Args:
        heat: evidence in [0, 1].
        side: pixels at most; a browser stretches it smoothly.
    """
    from matplotlib import colormaps

    colours = colormaps["inferno"](0.15 + 0.85 * heat)
    colours[..., 3] = _OPAQUE * heat
    image = Image.fromarray((colours * 255).round().astype(np.uint8), "RGBA")
    image.thumbnail((side, side))
    return image


def png_address(image: Image.Image) -> str:
    """Return a picture as a PNG file in a data: address."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
