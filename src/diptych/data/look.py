"""Looks at one picture for `check`: can it be read, what is odd about it, and what does it look like."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diptych.data.images import BadPicture, decode, size_of
from diptych.data.near import SIDE, look_hash
from diptych.data.source import Source

TINY = 32  # pixels on the shorter side
HUGE = 25_000_000  # pixels
STRIP = 4.0  # longer side by shorter
BLANK = 3.0  # grey levels of standard deviation


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a picture; `fault` is why it cannot be read, and then the rest is empty."""

    height: int = 0
    width: int = 0
    kind: str = ""
    odd: tuple[str, ...] = ()
    digest: bytes = b""
    hash: int = 0
    colours: UInt8[np.ndarray, " 192"] | None = None
    fault: BadPicture | None = None


def look_at(source: Source, row: int) -> Look:
    """Read and decode a picture of a source, to the end, and tell what is found."""
    try:
        picture = source.picture(row)
        height, width = size_of(picture)
        pixels = decode(picture, size=SIDE).numpy()
    except BadPicture as error:
        return Look(fault=error)
    kind, odd = _header(picture) if isinstance(picture, bytes) else ("pixels", [])
    if min(height, width) < TINY:
        odd.append("tiny")
    if height * width > HUGE:
        odd.append("huge")
    if max(height, width) > STRIP * min(height, width):
        odd.append("strip")
    if float(pixels.astype(np.float32).std((1, 2)).max()) < BLANK:
        odd.append("blank")
    data = picture if isinstance(picture, bytes) else picture.tobytes()
    found, colours = look_hash(pixels)
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return Look(height, width, kind, tuple(odd), digest, int(found), colours)


def _header(data: bytes) -> tuple[str, list[str]]:
    """Return the format of a file that was read without fault, and what its header says that is out of the ordinary."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            deep = image.mode.startswith("I") or image.mode == "F" or (image.format == "PNG" and data[24] == 16)
            clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            odd = {
                "CMYK": image.mode == "CMYK",
                "16-bit": deep,
                "animated": image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
                "rotated": image.getexif().get(0x0112, 1) not in (0, 1),
                "transparent": clear,
                "grey": image.mode in ("L", "1", "LA") or deep,
            }
            return str(image.format), [name for name, found in odd.items() if found]
    except Exception:  # a header that the fast decoder takes and Pillow does not
        return "JPEG", []
