"""From a JPEG file to 224 normalised pixels, per core and by the loader, against Pillow and torch's DataLoader.

The peer of one picture is what torchvision's usual transform does (Resize(224) bicubic, CenterCrop, ToTensor,
Normalize), written out, since torchvision cannot be imported beside a CPU torch; ours is `decode(crop="center")` and
the image tower's normalisation. The floor is the decoder alone. The peer of the loader is a DataLoader of two worker
processes that decodes with the same function, so that only the loading differs; wall time needs an idle machine, CPU
time (of all workers) does not. Pictures: `--pictures FOLDER`, else JPEGs drawn here with the spectrum of photographs.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import arguments, interleave, report
from diptych.core.batch import Batch
from diptych.data.formats import PICTURE_SUFFIXES
from diptych.data.images import decode, stack
from diptych.data.loader import Example, Loader
from diptych.data.sources import open_data
from diptych.encoders.base import CLIP_MEAN, CLIP_STD
from diptych.encoders.image import ViT

SIZES = ((500, 375), (640, 480), (1280, 960))
SIDE, BATCH = 224, 64
FALL = np.array([1.3, 1.6, 1.6])  # of brightness and of colour
Row = dict[str, Any]


def photograph(width: int, height: int, seed: int) -> bytes:
    """Draw a picture with about the spectrum of a photograph, smoother in colour, as a JPEG of quality 90.

    Amplitudes fall as 1 / f^1.3: by 1/f, as the mean of photographs has it, files are larger than any photograph's,
    since noise has no smooth parts.
    """
    rng = np.random.default_rng(seed)
    far = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    noise = np.fft.rfft2(rng.normal(size=(3, height, width))) / np.maximum(far, 1) ** FALL[:, None, None]
    plain = np.fft.irfft2(noise, (height, width))
    plain /= plain.std((1, 2), keepdims=True)
    mixed = np.stack([plain[0] + 0.3 * plain[1], plain[0], plain[0] + 0.3 * plain[2]], axis=2)
    pixels = np.clip(118 + 45 * mixed, 0, 255).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420"))


def usual(file: bytes, *, size: int) -> Tensor:
    """Do what torchvision's transform for CLIP does: Pillow, bicubic, crop, to float, normalise."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    shorter = min(image.size)
    image = image.resize(
        (int(size * image.width / shorter), int(size * image.height / shorter)), Image.Resampling.BICUBIC
    )
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    return pixels.sub_(torch.tensor(CLIP_MEAN).view(-1, 1, 1)).div_(torch.tensor(CLIP_STD).view(-1, 1, 1))


def by_pillow(files: list[bytes], size: int) -> Tensor:
    """Make a batch picture by picture, as collating does."""
    return torch.stack([usual(file, size=size) for file in files])


def by_diptych(tower: ViT, files: list[bytes]) -> Tensor:
    """Make a batch of bytes, and normalise it at once."""
    return tower.normalise(stack([decode(file, size=tower.image_size, crop="center") for file in files]))


def decoded(files: list[bytes]) -> None:
    """Decode and do nothing else."""
    for file in files:
        simplejpeg.decode_jpeg(file, "RGB")


def per_core(name: str, files: list[bytes], size: int, repeats: int) -> list[Row]:
    """Check that both ways see nearly the same, and time them."""
    tower = ViT(image_size=size, patch=size // 2, dim=8, layers=1, heads=1)
    apart = (by_pillow(files, size) - by_diptych(tower, files)) * tower.scale * 255
    grey = float(apart.abs().mean())
    assert grey < 1.5, f"{grey:.2f} grey levels apart"
    ways: dict[str, Callable[[], object]] = {
        "Pillow, as usual": partial(by_pillow, files, size),
        "diptych": partial(by_diptych, tower, files),
        "floor: simplejpeg decodes": partial(decoded, files),
    }
    timings = interleave(ways, repeats=repeats)
    peer = timings["Pillow, as usual"].median
    return [
        {
            "pictures": f"{name} to {size}",
            "way": way,
            "images/CPU s": len(files) / timing.median,
            "times the peer": peer / timing.median,
            "of floor": timing.median / timings["floor: simplejpeg decodes"].median,
            "grey levels apart": grey if way == "diptych" else None,
            "spread": timing.spread,
        }
        for way, timing in timings.items()
    ]


class Files(Dataset[Tensor]):
    """What a user of DataLoader would write: a file in, pixels out."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Read and decode one."""
        return decode(self.paths[index].read_bytes(), size=self.size, crop="center")


def pixels_of(examples: list[Example]) -> Batch:
    """Put pictures together."""
    return Batch(image=stack([example.image for example in examples if example.image is not None]))


def epoch_of_ours(folder: Path, size: int) -> Tensor:
    """Load every picture once with our loader, two threads; return what was seen, added up."""
    source = open_data(folder)
    loader = Loader(
        source, source.rows(), pixels_of, batch_size=BATCH, size=size, crop="center", workers=2, shuffle=False
    )
    return torch.stack([batch.need("image").sum() for batch in loader.epoch(0)]).sum()


def epoch_of_peer(folder: Path, size: int) -> Tensor:
    """Load every picture once with torch's DataLoader, two processes."""
    files = Files(sorted(folder.rglob("*.jpg")), size)
    return torch.stack([images.sum() for images in DataLoader(files, batch_size=BATCH, num_workers=2)]).sum()


def loading(folder: Path, count: int, size: int, repeats: int) -> list[Row]:
    """Time whole epochs, by the wall and by the CPU time of the process and its workers."""
    ways = {"DataLoader, 2 processes": epoch_of_peer, "diptych, 2 threads": epoch_of_ours}
    seen = {way: int(epoch(folder, size)) for way, epoch in ways.items()}
    assert len(set(seen.values())) == 1, seen
    wall: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, epoch in ways.items():
            before, start = os.times(), time.perf_counter()
            epoch(folder, size)
            wall[way].append(time.perf_counter() - start)
            busy[way].append(sum(os.times()[:4]) - sum(before[:4]))
    peer = "DataLoader, 2 processes"
    return [
        {
            "loader": way,
            "images/s wall": count / median(wall[way]),
            "times the peer, wall": median(wall[peer]) / median(wall[way]),
            "images/CPU s": count / median(busy[way]),
            "times the peer, CPU": median(busy[peer]) / median(busy[way]),
        }
        for way in ways
    ]


def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--pictures", type=Path, help="a folder of JPEGs in the place of drawn ones")
        parser.add_argument("--count", type=int, default=48, help="pictures of each size")
        parser.add_argument("--size", type=int, default=SIDE, help="side to make, in pixels")

    given = arguments(__doc__, more=more)
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.pictures is not None:
            found = sorted(path for path in given.pictures.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
            files = [path.read_bytes() for path in found[: given.count]]
            rows += per_core(given.pictures.name, files, given.size, given.repeats)
        else:
            for width, height in SIZES:
                made = [photograph(width, height, seed) for seed in range(given.count)]
                rows += per_core(f"{width} x {height}", made, given.size, given.repeats)
                files = made if width == SIZES[0][0] else files
        total = max(1, 480 // len(files)) * len(files)
        for number in range(total):
            (folder / f"{number:05}.jpg").write_bytes(files[number % len(files)])
        loaded = loading(folder, total, given.size, given.repeats)
    notes = [
        "grey levels apart: mean absolute difference of the two ways, of 255",
        *(
            "; ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items())
            for row in loaded
        ),
        f"loaders: {total} files of the first size, to bytes; opening and starting the workers included",
    ]
    report(f"JPEG files to {given.size} x {given.size} normalised pixels", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
