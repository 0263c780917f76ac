"""The verb `compare`: several systems on the same data with the same budget, and who is better by how much."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stdout
from io import StringIO
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
    from diptych.comparing.run import Job
    from diptych.comparing.whole import Comparison
    from diptych.train.outcome import Outcome


def compare(
    data: Annotated[str, typer.Argument(help="A table, folder, tar shards, hf:NAME or scenes.")],
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="SYSTEM...",
            help="clip, or with settings of its own clip:scale=20,head=mlp, or with a name big=clip:dim=512.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the runs, the tables and the page.")],
    recipe: Annotated[str | None, typer.Option(help="Settings for all, by name or as a file.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting for all that have it.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each system.")] = 3,
    jobs: Annotated[
        int, typer.Option(min=0, help="Runs at a time, in processes of their own; 0: one after another in this one.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but failures.")] = False,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    json: Json = None,
) -> None:
    """Train several systems alike, with several seeds, and compare their scores, costs and galleries.

    Typed again after an end or a kill, it goes on; with another system, only that one is run. What is in the folder
    already stays in the tables: delete FOLDER/NAME to take one out. The exit status is 1 when a run failed.

    Example: `diptych compare scenes:4000 clip siglip mapper --out cmp --recipe scenes --set text_encoder=transformer`
    """
    from diptych.cli.show import show_source
    from diptych.cli.standings import show_standings
    from diptych.comparing.run import Data
    from diptych.comparing.whole import gather
    from diptych.core.errors import UserError
    from diptych.train.contest import parse_contestants
    from diptych.train.plan import read_recipe

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("compare runs alone, not under torchrun; several runs at a time: --jobs")
    typed = parse_contestants(systems)
    shared, given = parse_settings(settings or []), None if recipe is None else read_recipe(recipe)
    folder = None if image_folder is None else str(image_folder)
    named = Data(data, image_column, caption_column, split_column, label_column, folder)
    source = named.open()
    if not quiet:
        show_source(source)
    command = "diptych " + shlex.join(sys.argv[1:])
    comparison = gather(
        out, named, source, typed, seeds=seeds, recipe=given, settings=shared, command=command, beside=max(1, jobs)
    )
    _run(comparison, jobs=jobs, quiet=quiet)
    found = comparison.save()
    write_json(json, found.record())
    with redirect_stdout(StringIO()):  # features that are in the cache already need no bar
        page = comparison.report(found)
    if not quiet:
        show_standings(found)
        typer.echo(f"Report: {page}, table: {out / 'table.md'}")
    for line in found.failures():
        typer.echo(f"failed: {line}", err=True)
    if found.failures():
        raise typer.Exit(1)


def _run(comparison: Comparison, *, jobs: int, quiet: bool) -> None:
    """Do the runs that are left, and keep the tables up to date after each."""
    from diptych.comparing.apart import compete_apart
    from diptych.comparing.run import compete_here

    wanted = comparison.jobs()
    left = [job for job in wanted if job.finished() is None]
    if not quiet:
        for note in comparison.contest.notes:
            typer.echo(f"note: {note}")
        typer.echo(f"{len(wanted)} runs, {len(wanted) - len(left)} of them finished before")
    comparison.save()

    def begin(job: Job) -> None:
        if not quiet:
            place = f", see {job.log}" if jobs else ""
            typer.echo(f"[{1 + wanted.index(job)}/{len(wanted)}] {job.title}{place}")

    ended = (
        compete_apart(left, comparison.data, count=jobs, begin=begin)
        if jobs
        else compete_here(left, comparison.source, quiet=quiet, begin=begin)
    )
    for job, outcome in ended:
        comparison.save()
        if outcome is None:
            typer.echo("stopped and saved; the same command goes on", err=True)
            raise typer.Exit(130)
        if not quiet:
            typer.echo(_told(job, outcome))


def _told(job: Job, outcome: Outcome) -> str:
    from diptych.metrics.shown import show
    from diptych.report.standings import title

    if outcome.failed:
        return f"{job.title} failed: {outcome.failed}"
    name = outcome.monitor if outcome.monitor in outcome.scores else next(iter(outcome.scores))
    return f"{job.title}: {title(name)} {show(name, outcome.scores[name])} after {outcome.seconds:,.0f} s"
