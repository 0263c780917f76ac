from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from diptych.core.errors import UserError
from diptych.data.formats import orientation
from diptych.data.images import BadPicture, decode, size_of, stack


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something like a photograph: smooth shades, a few edges, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    shades = [np.sin(x / rng.uniform(9, 40) + rng.uniform(0, 6)) + np.cos(y / rng.uniform(9, 40)) for _ in range(3)]
    pixels = 128 + 40 * np.stack(shades, axis=-1) + rng.normal(0, 4, (height, width, 3))
    pixels[height // 4 : height // 2, width // 3 : width // 2] += 60
    return np.clip(pixels, 0, 255).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 92} if kind == "JPEG" else {}) | options)
    return stream.getvalue()


def by_pillow(data: bytes, size: int) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def difference(one: torch.Tensor, other: np.ndarray) -> float:
    return float(np.abs(one.numpy().astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize(("height", "width"), [(375, 500), (501, 333), (64, 64), (30, 47), (1, 1), (643, 641)])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_fast_path_equals_pillow(height: int, width: int, size: int) -> None:
    data = encode(photo(height, width))
    scaled = min(height, width) >= 2.8 * size  # then the file is decoded at half its size or less
    assert difference(decode(data, size=size), by_pillow(data, size)) < (1.0 if scaled else 0.1)


def test_scaled_decoding_keeps_the_geometry() -> None:
    """The scaled sizes are rounded up (501 * 1/8 = 62.6 -> 63); without care that shifts fine detail."""
    stripes = np.repeat(np.tile([60, 200], 251)[:501, None], 3, axis=1).astype(np.uint8)
    ramp = np.linspace(0, 255, 501).round().astype(np.uint8)
    for pattern in (np.repeat(ramp[None, :, None], 397, axis=0).repeat(3, axis=2), np.tile(stripes[:397, None], 501)):
        data = encode(pattern[..., :3].copy(), quality=98, subsampling=0)
        assert difference(decode(data, size=24), by_pillow(data, 24)) < 0.7


def test_grey_and_progressive_jpeg() -> None:
    grey = encode(Image.fromarray(photo(90, 120)).convert("L"))
    assert difference(decode(grey, size=48), by_pillow(grey, 48)) < 0.1
    progressive = encode(photo(90, 120), progressive=True)
    assert difference(decode(progressive, size=48), by_pillow(progressive, 48)) < 0.1


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "CMYK", "scaled"])
def test_exif_orientation_is_honoured(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = turn
    image = Image.fromarray(photo(60, 90) if kind != "scaled" else photo(240, 360))
    data = encode(image.convert("CMYK") if kind == "CMYK" else image, "PNG" if kind == "PNG" else "JPEG", exif=exif)
    if kind != "PNG":
        assert orientation(data) == turn
    assert difference(decode(data, size=32), by_pillow(data, 32)) < 1.5
    assert size_of(data) == ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size[::-1]


def test_big_endian_and_damaged_exif() -> None:
    big = b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(">HHHIHH", 1, 0x0112, 3, 1, 6, 0)
    plain = encode(photo(20, 30))

    def with_exif(tiff: bytes) -> bytes:
        block = b"Exif\0\0" + tiff
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]

    assert orientation(with_exif(big)) == 6
    assert size_of(with_exif(big)) == (30, 20)
    assert orientation(with_exif(big[:15])) == 1
    assert orientation(with_exif(b"XX")) == 1
    assert decode(with_exif(big[:15]), size=8).shape == (3, 8, 8)


def flat(mode: str, colour: object, kind: str, **options: object) -> list[int]:
    data = encode(Image.new(mode, (12, 10), colour), kind, **options)
    pixels = decode(data, size=6)
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


def test_every_mode_becomes_rgb() -> None:
    assert flat("RGB", (10, 200, 30), "PNG") == [10, 200, 30]
    assert flat("L", 77, "PNG") == [77, 77, 77]
    assert flat("1", 1, "PNG") == [255, 255, 255]
    assert flat("RGBA", (255, 0, 0, 0), "PNG") == [255, 255, 255]
    assert flat("RGBA", (255, 0, 0, 255), "PNG") == [255, 0, 0]
    assert flat("LA", (0, 0), "PNG") == [255, 255, 255]
    assert flat("I;16", 257 * 100, "PNG") == [100, 100, 100]
    assert flat("I;16", 65535, "TIFF") == [255, 255, 255]
    assert flat("I", 257 * 100, "TIFF") == [100, 100, 100]
    assert flat("F", 0.5, "TIFF") == [128, 128, 128]
    assert flat("RGB", (255, 0, 255), "WEBP", lossless=True) == [255, 0, 255]
    red = flat("CMYK", (0, 255, 255, 0), "JPEG")
    assert red[0] > 240
    assert max(red[1:]) < 15


def test_palette_with_transparency_and_animated_gif() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    assert decode(encode(palette, "PNG"), size=4)[:, 0, 0].tolist() == [0, 0, 255]
    assert decode(encode(palette, "PNG", transparency=1), size=4)[:, 0, 0].tolist() == [255, 255, 255]
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(animated, size=4)[:, 0, 0].tolist() == [255, 0, 0]


def test_every_way_to_give_a_picture(tmp_path: Path) -> None:
    pixels = photo(40, 40)
    data = encode(pixels, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    expected = decode(data, size=16)
    for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        assert torch.equal(decode(picture, size=16), expected)
    assert decode(pixels[..., 0], size=16).shape == (3, 16, 16)
    assert decode(np.dstack([pixels, np.zeros((40, 40, 1), np.uint8)]), size=16).min() == 255
    assert decode(pixels[::-1], size=16).shape == (3, 16, 16)  # negative strides


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size, as small as its header: what a decompression bomb looks like."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    zeros = b"IDAT" + zlib.compress(bytes(1000))
    blocks = [body, zeros, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block)) for block in blocks
    )


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(encode(photo(16, 16)))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is no picture at all", "not a picture.*this is no"),
        (b"<html>404</html>", "not a picture"),
        (encode(photo(200, 200))[:2000], "cut short"),
        (encode(photo(200, 200))[:40], "damaged|not a picture"),
        (encode(photo(60, 60), "PNG")[:900], "cut short"),
        (encode(photo(60, 60), "GIF")[:300], "not a picture in a known format.*GIF"),
        (encode(photo(60, 60), "GIF")[:1500], "cut short|damaged"),
        (b"\xff\xd8\xff", "damaged|not a picture"),
        (png_header(20_000, 20_000), "too large|more than the limit"),
        (png_header(9_500, 9_500), "too large|more than the limit"),
        (jpeg_header(20_000, 20_000), "20,000 x 20,000 pixels is more than the limit"),
        (png_header(500, 500), "cut short|damaged"),
    ],
)
def test_bad_pictures_say_why(data: bytes, message: str) -> None:
    with pytest.raises(BadPicture, match=message):
        decode(data, size=32)


def test_other_bad_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadPicture, match="No such file"):
        decode(tmp_path / "none.jpg", size=8)
    with pytest.raises(BadPicture, match="Is a directory"):
        decode(tmp_path, size=8)
    with pytest.raises(BadPicture, match=r"not float64 \(4, 4\)"):
        decode(np.zeros((4, 4)), size=8)
    with pytest.raises(BadPicture, match="must be uint8"):
        decode(np.zeros((0, 4, 3), np.uint8), size=8)
    with pytest.raises(BadPicture, match="40 x 30 pixels is more than the limit of 1,000"):
        decode(encode(photo(30, 40), "PNG"), size=8, max_pixels=1000)
    with pytest.raises(UserError, match="unknown crop 'centre'; did you mean 'center'"):
        decode(photo(30, 40), size=8, crop="centre")
    with pytest.raises(UserError, match="needs a generator"):
        decode(photo(30, 40), size=8, crop="random")


def test_jpeg_with_rubbish_after_its_end_is_read() -> None:
    data = encode(photo(50, 50))
    assert difference(decode(data + b"\0" * 999, size=20), by_pillow(data, 20)) < 0.1


def test_center_crop_is_resize_then_crop() -> None:
    for height, width in ((60, 101), (101, 60), (77, 77)):
        image = Image.fromarray(photo(height, width))
        shorter = min(height, width)
        new = (int(32 * width / shorter), int(32 * height / shorter))
        left, top = (new[0] - 32) // 2, (new[1] - 32) // 2
        expected = image.resize(new, Image.Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
        got = decode(image, size=32, crop="center")
        assert difference(got, np.asarray(expected).transpose(2, 0, 1)) < 0.1


def test_center_crop_of_a_strip_stays_small() -> None:
    assert decode(np.zeros((2, 60_000, 3), np.uint8), size=64, crop="center").shape == (3, 64, 64)


def test_random_crop_is_a_function_of_its_generator() -> None:
    data = encode(photo(120, 90))
    one, same, other = (decode(data, size=24, crop="random", rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    # left stays left: a picture bright on its right side stays so in every crop
    ramp = np.repeat(np.linspace(0, 255, 80).astype(np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    for seed in range(30):
        columns = decode(ramp, size=16, crop="random", rng=np.random.default_rng(seed)).float().mean((0, 1))
        assert (columns.diff() > 0).all()
        share = float(columns[-1] - columns[0]) / 255
        assert math.sqrt(0.6 * 3 / 5) * 0.8 < share <= 1


def test_one_pixel_in_any_crop() -> None:
    for crop in ("squash", "center", "random"):
        got = decode(np.full((1, 1, 3), 9, np.uint8), size=5, crop=crop, rng=np.random.default_rng(0))
        assert got.tolist() == [[[9] * 5] * 5] * 3


@pytest.mark.real
def test_real_photographs_by_both_paths(real_data: Path) -> None:
    for path in sorted((real_data / "flickr8k" / "images").glob("*.jpg"))[:40]:
        assert difference(decode(path, size=128), by_pillow(path.read_bytes(), 128)) < 0.05


def test_a_batch_holds_the_pictures_and_keeps_their_channels_together() -> None:
    pictures = [decode(photo(20, 30, seed), size=8) for seed in range(3)]
    batch = stack(pictures)
    assert torch.equal(batch, torch.stack(pictures))
    assert batch.is_contiguous(memory_format=torch.channels_last)
