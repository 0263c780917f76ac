"""Pictures that strangers send and pictures that a page shows: checked before they are decoded, small when sent."""

from __future__ import annotations

import io

import torch
from jaxtyping import UInt8
from PIL import Image

from diptych.data.formats import BadPicture, Picture, open_picture
from diptych.data.images import decode

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
"""What is read from strangers. Pillow knows more, some of which start other programs (EPS) or were never hardened."""

SIDES = (160, 320, 640, 1280)
"""Longest sides in pixels in which a picture is sent."""


def check_upload(data: bytes, *, max_pixels: int) -> None:
    """Look at the header of an uploaded picture.

    Raises:
        BadPicture: for a file that is empty, of no format in `FORMATS`, or larger than allowed.
    """
    if not data:
        raise BadPicture("the picture is empty (0 bytes)", kind="empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(f"the picture has more than the {max_pixels:,} pixels allowed", kind="too large") from None
    except Exception:  # Pillow's readers raise whatever they like on a damaged header
        known = ", ".join(FORMATS)
        raise BadPicture(f"the upload is no picture that is read here: send one of {known}", kind="unknown") from None
    if width * height > max_pixels:
        what = f"{width:,} x {height:,} pixels is more than the {max_pixels:,} allowed: send it smaller"
        raise BadPicture(what, kind="too large")


def square(picture: Picture, *, size: int, crop: str) -> UInt8[torch.Tensor, "3 s s"]:
    """Decode a picture as the model sees it.

    Raises:
        BadPicture: for one that is cut short or damaged.
    """
    return decode(picture, size=size, crop=crop)


def shown(picture: Picture, *, side: int) -> tuple[bytes, int, int]:
    """Make a picture small enough to be sent, without what else its file held (place, owner, comments).

    Args:
        picture: any.
        side: pixels of the longer side at most.

    Returns:
        A JPEG file, and the height and width of the whole picture.

    Raises:
        BadPicture: for one that cannot be read.
    """
    opened = open_picture(picture)
    eighths = 8
    if opened.scalable:
        longer = max(opened.height, opened.width)
        eighths = next((part for part in (1, 2, 4) if longer * part / 8 >= 1.4 * side), 8)
    image = Image.fromarray(opened.load(eighths)[0])
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue(), opened.height, opened.width


def area(height: int, width: int, *, crop: str) -> tuple[float, float, float, float]:
    """Return which part of a picture the model saw: left, top, width and height as shares of the whole."""
    if crop == "squash":
        return 0.0, 0.0, 1.0, 1.0
    side = min(height, width)
    return (width - side) / 2 / width, (height - side) / 2 / height, side / width, side / height
