"""The verb `classify`: name pictures with words typed in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import Device, Json, write_json


def classify(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files.")],
    labels: Annotated[
        str, typer.Option(help="Names to choose from, with commas between; none: the classes the run learnt.")
    ] = "",
    prompt: Annotated[
        list[str] | None, typer.Option(help="A sentence with {} for the name; repeat for several.")
    ] = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Say which of some names, or of the classes that a classifier learnt, fits each picture best, with probabilities.

    Example: `diptych classify runs/mine dog.jpg cat.jpg --labels "dog,cat,a bird"`
    """
    from rich.console import Console
    from rich.table import Table

    from diptych.core.errors import UserError
    from diptych.data.images import BadPicture
    from diptych.predictor import PROMPTS, load

    names = [name.strip() for name in labels.split(",") if name.strip()]
    predictor = load(run, device=device)
    table = Table("picture", "label", "probability", "next best", box=None)
    results = []
    for path in pictures:
        try:
            (ranked,) = predictor.classify(path, names, prompts=tuple(prompt) if prompt else PROMPTS)
        except BadPicture as error:
            typer.echo(f"skipped {path}: {error}", err=True)
            continue
        best, *rest = ranked
        table.add_row(str(path), best[0], f"{best[1]:.3f}", ", ".join(f"{name} {p:.3f}" for name, p in rest[:2]))
        results.append({"picture": str(path), "labels": dict(ranked)})
    Console().print(table)
    write_json(json, results)
    if not results:
        raise UserError("none of the pictures could be read")
