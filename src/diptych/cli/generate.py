"""The verb `generate`: pictures for texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diptych.cli.options import Device

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

EDGE = 2
"""Pixels between the pictures of a sheet."""


def generate(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="One or several, each in quotes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture file: a sheet with a row for each text.")] = Path(
        "generated.png"
    ),
    count: Annotated[int, typer.Option(min=1, max=1000, help="Pictures for each text.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed draws other pictures.")] = 0,
    scale: Annotated[int, typer.Option(min=1, max=16, help="Enlarge each pixel to so many.")] = 2,
    apart: Annotated[bool, typer.Option("--apart", help="Write each picture into a file of its own instead.")] = False,
    device: Device = "auto",
) -> None:
    """Draw pictures for texts, with a system that was trained to, as gan_cls.

    Example: `diptych generate runs/draws "a large red circle" "a small blue star" --count 8 --out sheet.png`
    """
    import numpy as np

    from diptych.core.errors import UserError
    from diptych.predictor import load

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        raise UserError(f"--out {out} is no name of a picture file; give one that ends in .png, .jpg or .webp")
    drawn = np.array(load(run, device=device).generate(texts, count=count, seed=seed))
    drawn = drawn.repeat(scale, axis=2).repeat(scale, axis=3)
    named = (
        {out.with_stem(f"{out.stem}-{text}-{one}"): drawn[text, one] for text, one in np.ndindex(drawn.shape[:2])}
        if apart
        else {out: sheet(drawn)}
    )
    for path, picture in named.items():
        _save(path, picture)
    where = f"{len(named)} files beside {out}" if apart else f"{out}, a row for each text"
    typer.echo(f"{len(texts) * count} pictures in {where}")


def sheet(drawn: UInt8[np.ndarray, "n k h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Lay pictures out on white, a row for each text."""
    import numpy as np

    padded = np.pad(drawn, ((0, 0), (0, 0), (EDGE, 0), (EDGE, 0), (0, 0)), constant_values=255)
    rows = np.concatenate([np.concatenate(list(row), axis=1) for row in padded], axis=0)
    return np.pad(rows, ((0, EDGE), (0, EDGE), (0, 0)), constant_values=255)


def _save(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    from PIL import Image

    from diptych.core.errors import UserError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; give --out another path") from None
