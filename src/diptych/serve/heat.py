"""Heat maps as pictures to lay over a picture."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float32
from PIL import Image

_OPAQUE = 0.8  # where the evidence is strongest; the picture must still be recognised


def heat_png(heat: Float32[np.ndarray, "h w"], *, side: int = 512) -> bytes:
    """Return a PNG that is clear where nothing speaks for the text and warm where most does.

    Args:
        heat: evidence in [0, 1].
        side: pixels at most; a browser stretches it smoothly.
    """
    from matplotlib import colormaps

    colours = colormaps["inferno"](0.15 + 0.85 * heat)
    colours[..., 3] = _OPAQUE * heat
    image, buffer = Image.fromarray((colours * 255).round().astype(np.uint8), "RGBA"), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, format="PNG")
    return buffer.getvalue()
