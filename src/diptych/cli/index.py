"""The verb `index`: pictures become searchable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import INDEX_HELP, CaptionColumn, Device, ImageColumn, ImageFolder, LabelColumn, SplitColumn


def index(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    images: Annotated[str, typer.Argument(help="A folder of pictures, a table, tar shards, hf:NAME or scenes.")],
    out: Annotated[str, typer.Option(metavar="INDEX", help=f"{INDEX_HELP}; made, or added to.")],
    split: Annotated[str, typer.Option(help="test, dev, train or all.")] = "all",
    update: Annotated[
        bool, typer.Option("--update", help="Embed known pictures anew instead of passing over.")
    ] = False,
    delete: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Take this picture out; repeat.")] = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    device: Device = "auto",
) -> None:
    """Embed pictures and store their vectors, captions and other columns on disk.

    Typed again it adds what is new; stopped in the middle it keeps what it had and goes on the next time.

    Example: `diptych index runs/mine photos/ --out photos.index`
    """
    from diptych.cli.show import show_source
    from diptych.data.sources import open_data
    from diptych.indexing import add_pictures, open_for
    from diptych.predictor import load
    from diptych.search.opening import shown

    source = open_data(
        images,
        image_column=image_column,
        caption_column=caption_column,
        split_column=split_column,
        label_column=label_column,
        image_folder=image_folder,
    )
    show_source(source)
    predictor = load(run, device=device)
    rows = source.rows(split)
    with open_for(predictor, run, out) as store:
        removed = store.delete(delete) if delete else 0
        with typer.progressbar(length=len(rows), label="pictures") as bar:
            done = add_pictures(store, predictor, source, rows, named=images, update=update, passed=bar.update)
        plan = store.optimize()
        count = len(store)
    for problem in done.skipped:
        typer.echo(f"skipped {problem.where}: {problem.what}", err=True)
    typer.echo(
        f"{done.added:,} pictures added, {done.known:,} known before, {len(done.skipped):,} skipped, {removed:,} "
        f"deleted; {count:,} in {shown(out)}. {plan}"
    )
    typer.echo(f'Next: diptych search {shown(out)} "a text"')
