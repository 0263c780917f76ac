"""The verb `export`: the encoders of a run for use without diptych."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="OUT", help="Folder for the two encoders as ONNX.")],
) -> None:
    """Write the two encoders of a run as ONNX, checked against torch, with what one needs to use them anywhere.

    Example: `diptych export runs/mine --onnx exported`
    """
    from diptych.export import FACTS, IMAGE, TEXT, export_onnx

    made = export_onnx(run, onnx)
    typer.echo(f"{made.folder / IMAGE}: pictures to {made.facts['vectors']['dim']} numbers, torch +- {made.image:.1e}")
    typer.echo(f"{made.folder / TEXT}: texts to the same space, torch +- {made.text:.1e}")
    typer.echo(f"{made.folder / 'tokenizer.json'} and {made.folder / FACTS} say how to use them")
