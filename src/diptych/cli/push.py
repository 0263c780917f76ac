"""The verb `push`: a run for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    to: Annotated[str, typer.Argument(help="A folder, or hf:USER/NAME on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option("--public", help="On the hub: let everybody see it.")] = False,
    message: Annotated[str, typer.Option("--message", "-m", help="On the hub: what the commit says.")] = "",
) -> None:
    """Put what one needs of a run into a folder, or on the model hub; the network is used only for hf:USER/NAME.

    Example: `diptych push runs/mine hf:user/mine`, and elsewhere `diptych.load("hf:user/mine")`
    """
    from diptych.train.hub import push as send

    typer.echo(f'Open it with diptych.load("{send(run, to, public=public, message=message)}")')
