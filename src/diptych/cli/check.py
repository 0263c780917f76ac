"""The verb `check`: what is wrong with some data, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import CaptionColumn, ImageColumn, ImageFolder, Json, LabelColumn, SplitColumn, write_json


def check(
    data: Annotated[str, typer.Argument(help="A table, folder, tar shards, hf:NAME or scenes.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a page with pictures and a list of every bad row.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A run, folder or hub name whose tokenizer counts what would be cut.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=3, help="Tokens a model reads; the tokenizer's own.")] = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    json: Json = None,
) -> None:
    """Look at every picture and caption and say what is wrong with which: before any training.

    Finds missing, damaged, huge, odd and blank pictures, copies (also across splits), empty, long, repeated captions.

    Example: `diptych check captions.jsonl --out checked`
    """
    import csv

    from rich.console import Console
    from rich.table import Table

    from diptych.data.check import check as look
    from diptych.data.sources import open_data
    from diptych.data.tokenizer import Tokenizer
    from diptych.report.check import summary_rows, write_check

    source = open_data(
        data,
        image_column=image_column,
        caption_column=caption_column,
        split_column=split_column,
        label_column=label_column,
        image_folder=image_folder,
    )
    typer.echo(source.name)
    words = None if tokenizer is None else Tokenizer.from_pretrained(tokenizer)
    with typer.progressbar(length=len(source), label="pictures") as bar:
        result = look(source, tokenizer=words, context=context, progress=lambda done, _: bar.update(done - bar.pos))
    rows = summary_rows(result)
    table = Table("", "what", "rows", "meaning", box=None)
    for severity, kind, count, meaning in rows:
        colour = {"error": "red", "warning": "yellow"}.get(severity, "dim")
        table.add_row(f"[{colour}]{severity}[/]", kind, f"{count:,}", meaning)
    Console().print(table if rows else "nothing to complain about")
    if out is not None:
        page = write_check(out / "check.html", source, result)
        with (out / "bad-rows.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("severity", "kind", "row", "note"), *result.bad_rows()])
        typer.echo(f"Page: {page}. Every bad row: {out / 'bad-rows.csv'}")
    found = {kind: {"severity": severity, "rows": count} for severity, kind, count, _ in rows}
    write_json(json, {"pictures": result.pictures, "captions": result.captions, "found": found})
