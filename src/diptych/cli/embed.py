"""The verb `embed`: the vectors of pictures and captions as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import CaptionColumn, Device, ImageColumn, ImageFolder, LabelColumn, SplitColumn


def embed(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    data: Annotated[str, typer.Argument(help="A table, folder, tar shards, hf:NAME or scenes.")],
    out: Annotated[Path, typer.Option(help="Folder for images.npy, texts.npy, keys.jsonl and skipped.jsonl.")],
    split: Annotated[str, typer.Option(help="test, dev, train or all.")] = "all",
    engine: Annotated[str, typer.Option(help="local: this machine; ray: the Ray cluster of RAY_ADDRESS.")] = "local",
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    device: Device = "auto",
) -> None:
    """Write unit vectors: one a picture (images.npy), one a caption (texts.npy), and what they belong to (keys.jsonl).

    Stopped in the middle it goes on where it was when typed again. Pictures that cannot be read are listed.

    Example: `diptych embed runs/mine photos/ --out vectors`
    """
    from diptych.cli.show import show_source
    from diptych.core.errors import unknown
    from diptych.embedding import Work, compute_here, finished, join
    from diptych.embedding_ray import compute_with_ray

    engines = {"local": compute_here, "ray": compute_with_ray}
    if engine not in engines:
        raise unknown("engine", engine, list(engines))
    columns = {
        "image_column": image_column,
        "caption_column": caption_column,
        "split_column": split_column,
        "label_column": label_column,
        "image_folder": image_folder,
    }
    work = Work(str(run), data, columns, split, device)
    show_source(work.source)
    missing = work.begin(out)
    if not finished(out):
        with typer.progressbar(length=len(work.rows), label="pictures") as bar:
            bar.update(len(work.rows) - sum(len(work.rows_of(number)) for number in missing))
            engines[engine](work, out, missing, bar.update)
    done = join(work, out)
    for problem in done.skipped:
        typer.echo(f"skipped {problem.where}: {problem.what}", err=True)
    typer.echo(f"{done.pictures:,} pictures and {done.captions:,} captions in {out}, {len(done.skipped):,} skipped")
