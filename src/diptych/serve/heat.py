"""Heat maps as pictures to lay over a picture."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float32
from PIL import Image

_OPAQUE = 0.8  # where the evidence is strongest; the picture must still be recognised


def heat_png(heat: Float32[np.ndarray, "h w"]) -> bytes:
    """Return a PNG that is clear where nothing speaks for the text and warm where most does.

    Args:
        heat: evidence in [0, 1].
    """
    from matplotlib import colormaps

    colours = colormaps["inferno"](0.15 + 0.85 * heat)
    colours[..., 3] = _OPAQUE * heat
    buffer = io.BytesIO()
    Image.fromarray((colours * 255).round().astype(np.uint8), "RGBA").save(buffer, format="PNG")
    return buffer.getvalue()
