"""The verb `train`: a system learns from data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diptych.cli.options import (
    CaptionColumn,
    ImageColumn,
    ImageFolder,
    Json,
    LabelColumn,
    SplitColumn,
    parse_settings,
    write_json,
)

if TYPE_CHECKING:
    from diptych.train.experiment import Experiment
    from diptych.train.result import Result


def train(
    system: Annotated[str, typer.Argument(help="A system that `diptych models` lists, or a module path of your own.")],
    data: Annotated[str, typer.Argument(help="A table, folder, tar shards, hf:NAME or scenes.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the weights, scores and report.")],
    recipe: Annotated[str | None, typer.Option(help="Settings that are known to work, by name or as a file.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; can be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that is finished or was changed.")] = False,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    json: Json = None,
) -> None:
    """Train a system on pictures and captions, score it on the test split and write a report.

    A run that was stopped goes on when the same command is typed again. On several GPUs: `torchrun
    --nproc-per-node 4 -m diptych train ...`.

    Example: `diptych train clip captions.jsonl --out runs/mine --set image_encoder=resnet --set epochs=20`
    """
    from diptych.cli.show import show_source
    from diptych.core.runtime import rank
    from diptych.data.sources import open_data
    from diptych.metrics.shown import nested
    from diptych.train.distributed import processes
    from diptych.train.experiment import prepare, run
    from diptych.train.plan import make_plan, read_recipe

    plan = make_plan(
        system,
        recipe=None if recipe is None else read_recipe(recipe),
        settings=parse_settings(settings or []),
    )
    command = "diptych " + shlex.join(sys.argv[1:])
    with processes(plan.train.device):
        source = open_data(
            data,
            image_column=image_column,
            caption_column=caption_column,
            split_column=split_column,
            label_column=label_column,
            image_folder=image_folder,
        )
        if rank() == 0:
            show_source(source)
        experiment = prepare(plan, source, out=out, named=data, command=command, resume=resume)
        result, scores = run(experiment, out=out, command=command, resume=resume)
        first = rank() == 0
    if result.stopped == "interrupted":
        raise typer.Exit(130)
    if first:
        write_json(json, nested(scores))
        _tell(out, experiment, result, scores)


def _tell(out: Path, experiment: Experiment, result: Result, scores: dict[str, float]) -> None:
    """Print the scores, write the page and the card, and say what to do next."""
    from diptych.cli.show import show_scores
    from diptych.core.abilities import abilities
    from diptych.report.card import write_card
    from diptych.report.run import write_report

    protocol = experiment.data.protocol("test") if scores else ""
    if scores:
        show_scores(scores, split="test", protocol=protocol)
    page = write_report(out, experiment.data, experiment.model, scores=scores, split="test")
    offers = abilities(experiment.model)
    write_card(out, scores=scores, left_out=experiment.left_out(), offers=offers, protocol=protocol)
    typer.echo(f"{result.steps:,} steps in {result.seconds:,.0f} s. Report: {page}")
    for ability in offers:
        typer.echo(f"Next: {ability.command.format(run=out)}")
