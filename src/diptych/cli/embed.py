"""The verb `embed`: the vectors of pictures and captions as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import CaptionColumn, Device, ImageColumn, ImageFolder, LabelColumn, SplitColumn


def embed(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    data: Annotated[str, typer.Argument(help="A table, folder, tar shards, hf:NAME or scenes.")],
    out: Annotated[Path, typer.Option(help="Folder for images.npy, texts.npy and keys.jsonl.")],
    split: Annotated[str, typer.Option(help="test, dev, train or all.")] = "all",
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    device: Device = "auto",
) -> None:
    """Write unit vectors: one a picture (images.npy), one a caption (texts.npy), and what they belong to (keys.jsonl).

    Example: `diptych embed runs/mine photos/ --out vectors`
    """
    import json

    import numpy as np

    from diptych.cli.show import show_source
    from diptych.data.source import Problem
    from diptych.data.sources import open_data
    from diptych.predictor import load

    source = open_data(
        data,
        image_column=image_column,
        caption_column=caption_column,
        split_column=split_column,
        label_column=label_column,
        image_folder=image_folder,
    )
    show_source(source)
    predictor = load(run, device=device)
    out.mkdir(parents=True, exist_ok=True)
    skipped: list[Problem] = []
    rows = source.rows(split)
    images, keys = [], []
    captions: list[str] = []
    with typer.progressbar(length=len(rows), label="pictures") as bar:
        for piece, vectors in predictor.embed_rows(source, rows, skipped=skipped):
            images.append(vectors)
            for row in piece.tolist():
                found = source.row(row)
                keys.append({"key": found.key, "captions": len(found.captions), "split": found.split})
                captions += found.captions
            bar.update(len(piece))
    np.save(out / "images.npy", np.concatenate(images))
    if captions:
        np.save(out / "texts.npy", predictor.embed_text(captions))
    lines = (json.dumps(key, ensure_ascii=False) for key in keys)
    (out / "keys.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for problem in skipped:
        typer.echo(f"skipped {problem.where}: {problem.what}", err=True)
    typer.echo(f"{len(keys):,} pictures and {len(captions):,} captions in {out}, {len(skipped):,} skipped")
