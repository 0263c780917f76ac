"""The verb `evaluate`: scores of a trained run on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diptych.cli.options import (
    CaptionColumn,
    Device,
    ImageColumn,
    ImageFolder,
    Json,
    LabelColumn,
    SplitColumn,
    write_json,
)

if TYPE_CHECKING:
    from diptych.data.source import Problem


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    data: Annotated[str, typer.Argument(help="A table, folder, tar shards, hf:NAME or scenes.")],
    split: Annotated[str, typer.Option(help="test, dev, train or all.")] = "test",
    zero_shot: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Classify into the names of this column instead.")
    ] = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Score a run as its system is judged, for most by retrieval both ways; or zero-shot classification.

    Retrieval: R@K counts a picture as right when any of its captions is among the first K; ties count against the
    model; a sentence that several pictures share is right for each. Zero-shot: the class names are put into several
    prompts, whose vectors are averaged.

    Example: `diptych evaluate runs/mine captions.jsonl --split test --json scores.json`
    """
    from diptych.cli.show import show_scores, show_source
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
    if zero_shot is not None:
        from diptych.cli.zero_shot import classify_rows

        write_json(json, {"zero_shot": classify_rows(predictor, source, source.rows(split), column=zero_shot)})
        return
    from diptych.metrics.shown import nested
    from diptych.train.experiment import data_for, load_run

    skipped: list[Problem] = []
    judged = data_for(load_run(run), source, split=split)
    scores = judged.scores(predictor.model, split, skipped=skipped)
    for problem in skipped:
        typer.echo(f"skipped {problem.where}: {problem.what}", err=True)
    show_scores(scores, split=split, protocol=judged.protocol(split))
    write_json(json, nested(scores))
