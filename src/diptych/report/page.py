"""The frame that every page of diptych shares: one HTML file, no address outside it, light and dark."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from PIL import Image


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, out: Path, values: dict[str, object]) -> Path:
    """Fill a template of this folder and write the page.

    Returns:
        Where it was written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_templates().get_template(template).render(values), encoding="utf-8")
    return out


def data_uri(picture: Image.Image | UInt8[np.ndarray, "h w 3"], *, side: int = 160) -> str:
    """Turn a picture into a small JPEG inside a `data:` address, so that a page stays one file.

    Args:
        picture: as PIL image or pixels.
        side: pixels of the longer side at most; small pictures are enlarged without blur.
    """
    from PIL import Image

    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image = image.convert("RGB")
    ratio = side / max(image.size)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    image = image.resize(size, Image.Resampling.LANCZOS if ratio < 1 else Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
