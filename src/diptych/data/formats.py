"""Opens picture files: plain JPEG by a fast decoder, every other format and mode by Pillow, always to upright RGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from diptych.core.errors import UserError

Picture = bytes | str | Path | np.ndarray | Image.Image
Pixels = UInt8[np.ndarray, "h w 3"]

PICTURE_SUFFIXES = frozenset(
    (*(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp"), *(".tif", ".tiff", ".ppm", ".pgm", ".avif"))
)
MAX_PIXELS = 2**28 // 3  # 89 million, the point at which Pillow warns of a decompression bomb


class BadPicture(UserError):  # noqa: N818 - it is the picture that is bad
    """A picture that cannot be read; the line says why, `kind` in a word ("missing", "empty", "unknown" ...)."""

    def __init__(self, what: str, *, kind: str = "damaged") -> None:
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture whose header was read: its upright size, and `load`, which decodes it.

    `load(eighths)` returns the upright pixels and their scale: eighths / 8 where the file is `scalable`, else 1. The
    scaled sides are rounded up.
    """

    height: int
    width: int
    load: Callable[[int], tuple[Pixels, float]]
    scalable: bool = False


def open_picture(picture: Picture, max_pixels: int = MAX_PIXELS) -> Opened:
    """Read the header of a picture.

    Raises:
        BadPicture: for a file that is missing, empty, larger than `max_pixels` or no picture.
    """
    if isinstance(picture, str | Path):
        try:
            picture = Path(picture).read_bytes()
        except OSError as error:
            raise BadPicture(f"the file cannot be read: {error.strerror or error}", kind="missing") from None
    if isinstance(picture, np.ndarray):
        pixels = _check_array(picture)
        return Opened(pixels.shape[0], pixels.shape[1], lambda _: (pixels, 1.0))
    if isinstance(picture, Image.Image):
        return _open_pillow(picture, max_pixels)
    if not picture:
        raise BadPicture("the file is empty (0 bytes)", kind="empty")
    plain = _open_jpeg(picture, max_pixels) if picture[:2] == b"\xff\xd8" else None
    return plain or _open_pillow(picture, max_pixels)


def _open_jpeg(data: bytes, max_pixels: int) -> Opened | None:
    """Open what the fast decoder is sure to read as Pillow does: grey and YCbCr; None for the rest."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colour not in ("YCbCr", "Gray"):
        return None
    _refuse_huge(height, width, max_pixels)
    turn = orientation(data)

    upright = (height, width) if turn < 5 else (width, height)
    return Opened(upright[0], upright[1], partial(_load_jpeg, data, height, width, turn), scalable=True)


def _load_jpeg(data: bytes, height: int, width: int, turn: int, eighths: int) -> tuple[Pixels, float]:
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height * eighths // 8), min_width=-(-width * eighths // 8)
        )
    except ValueError:  # it is strict; Pillow decides whether the file can be read all the same
        return _open_pillow(data, height * width).load(8)
    return _turn(pixels, turn), eighths / 8


def _open_pillow(picture: bytes | Image.Image, max_pixels: int) -> Opened:
    image = _pillow(picture) if isinstance(picture, bytes) else picture
    _refuse_huge(image.height, image.width, max_pixels)
    try:
        turned = image.getexif().get(0x0112, 1) >= 5
    except Exception:  # damaged EXIF; Pillow's readers raise whatever they like
        turned = False
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    return Opened(height, width, lambda _: (_pillow_pixels(image), 1.0))


def _pillow(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture(f"the picture is too large to be safe: {error}", kind="too large") from None
    except UnidentifiedImageError:
        raise BadPicture(f"not a picture in a known format (it begins with {data[:12]!r})", kind="unknown") from None
    except Exception as error:  # Pillow's readers raise whatever they like on a damaged header
        raise BadPicture(f"the picture is damaged: {error}") from None


def _pillow_pixels(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return np.asarray(to_rgb(upright))
    except Exception as error:  # as above, on damaged data
        raise BadPicture(f"the picture is cut short or damaged: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL mode to RGB: 16-bit and float greys are scaled, transparent pixels turn white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255):
            values = values / 257
        elif image.mode == "F" and values.max(initial=0) <= 1:
            values = values * 255
        return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _check_array(array: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "h w 3"]:
    shape = array.shape
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits or 0 in shape:
        raise BadPicture(f"an array must be uint8 (h, w), (h, w, 3) or (h, w, 4), not {array.dtype} {shape}")
    if len(shape) == 3 and shape[2] == 3:
        return array
    return np.asarray(to_rgb(Image.fromarray(array)))


def _refuse_huge(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        what = f"{width:,} x {height:,} pixels is more than the limit of {max_pixels:,}"
        raise BadPicture(what, kind="too large")


def _turn(pixels: UInt8[np.ndarray, "h w 3"], turn: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Undo an EXIF orientation."""
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def orientation(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of a JPEG file, 1 when it has none, without reading past its header."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA or length < 2:
            return 1
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return _tiff_orientation(data[place + 10 : place + 2 + length])
        place += 2 + length
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # a damaged block says nothing, and the pixels may be sound
        return 1
    return 1
