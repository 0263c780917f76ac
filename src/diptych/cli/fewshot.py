"""The verb `fewshot`: what a few pictures a class add to a trained run, by several methods."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diptych.cli.options import Device, ImageColumn, ImageFolder, Json, LabelColumn, SplitColumn, write_json

if TYPE_CHECKING:
    from rich.progress import TaskID

    from diptych.data.source import Source
    from diptych.fewshot.study import FewShotConfig, Study
    from diptych.predictor import Predictor

TOLD = 5
"""So many unreadable pictures are told."""


def fewshot(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    data: Annotated[str, typer.Argument(help="Pictures with a class: a table, folder, shards, hf:NAME or scenes.")],
    shots: Annotated[str, typer.Option(help="Pictures a class, with commas between.")] = "1,2,4,8,16",
    methods: Annotated[
        str,
        typer.Option(
            help="all, or with commas between: zero-shot, prototype, prototype-text, probe, tip-adapter, "
            "tip-adapter-f, coop, wise-ft."
        ),
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of shots; the interval is over them.")] = 5,
    test_per_class: Annotated[int, typer.Option(min=0, help="Test pictures of each class at most; 0: all.")] = 0,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A sentence with {} for the name; repeat for several.")
    ] = None,
    context_init: Annotated[str, typer.Option(help="coop: words that its context begins as.")] = "a photo of a",
    context: Annotated[int, typer.Option(min=0, help="coop: that many random vectors instead; 0: the words.")] = 0,
    context_per_class: Annotated[bool, typer.Option(help="coop: a context for each class.")] = False,
    coop_steps: Annotated[int, typer.Option(min=0, help="coop: steps, each over all shots.")] = 50,
    coop_lr: Annotated[float, typer.Option(help="coop: learning rate.")] = 0.01,
    tune_epochs: Annotated[int, typer.Option(min=1, help="wise-ft: epochs over the shots.")] = 10,
    tune_lr: Annotated[float, typer.Option(help="wise-ft: learning rate.")] = 1e-4,
    kept: Annotated[
        str | None, typer.Option(metavar="DATA", help="wise-ft: captioned pictures whose retrieval shall be kept.")
    ] = None,
    image_column: ImageColumn = None,
    split_column: SplitColumn = None,
    label_column: LabelColumn = None,
    image_folder: ImageFolder = None,
    device: Device = "auto",
    html: Annotated[Path | None, typer.Option(metavar="PATH", help="Write a page with curves and table.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the curves as .png, .svg or .pdf.")] = None,
    json: Json = None,
) -> None:
    """Learn classes from a few pictures each, by several methods on the same features, and compare with zero-shot.

    Settings are chosen on other pictures that are not tested on; the test pictures choose nothing.

    Example: `diptych fewshot runs/mine photos/ --label-column label --html fewshot.html`
    """
    from diptych.cli.show import show_source
    from diptych.data.sources import open_data
    from diptych.fewshot.coop import CoOpConfig
    from diptych.fewshot.page import check_plot
    from diptych.fewshot.study import METHODS, FewShotConfig
    from diptych.fewshot.wise_ft import TuneConfig
    from diptych.predictor import PROMPTS, load

    learnt = {"init": context_init, "context": context, "per_class": context_per_class}
    config = FewShotConfig.parse(
        {
            "shots": shots,
            "methods": METHODS if methods == "all" else methods,
            "seeds": seeds,
            "test_per_class": test_per_class,
            "prompts": tuple(prompt) if prompt else PROMPTS,
            "coop": CoOpConfig.parse({**learnt, "steps": coop_steps, "lr": coop_lr}),
            "tune": TuneConfig.parse({"epochs": tune_epochs, "lr": tune_lr}),
        }
    )
    check_plot(plot)
    source = open_data(
        data,
        image_column=image_column,
        split_column=split_column,
        label_column=label_column,
        image_folder=image_folder,
    )
    show_source(source)
    elsewhere = None if kept is None else open_data(kept)
    predictor = load(run, device=device)
    study, whole = _run(predictor, source, config, column=_field(source, label_column), elsewhere=elsewhere)
    _show(study)
    write_json(json, {"command": _command(), "finished": whole, **study.results()})
    _write(study, f"Few-shot use of {run} on {data}", html=html, plot=plot)
    if not whole:
        raise typer.Exit(130)


def _field(source: Source, column: str | None) -> str | None:
    """Return where a source keeps the column that was named: tables keep it as their label, which is then guessed."""
    from diptych.data.table import Table

    renamed = isinstance(source, Table) and len(source) > 0 and column not in source.row(0).fields
    return None if renamed else column


def _run(
    predictor: Predictor, source: Source, config: FewShotConfig, *, column: str | None, elsewhere: Source | None
) -> tuple[Study, bool]:
    """Run the study under a progress bar; also say whether it came to its end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from diptych.fewshot.protocol import run
    from diptych.fewshot.study import open_study

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        shown: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bar.add_task(what, total=total)
            bar.update(shown[what], completed=done, total=total)

        study = open_study(predictor, source, config, column=column, progress=tell)
        total = config.seeds * len(config.shots) * len(config.methods)
        try:
            for done, score in enumerate(run(study, elsewhere=elsewhere), start=1):
                each = total - config.seeds * len(config.shots) * len(study.left_out)
                tell("scores", done, each)
                bar.update(shown["scores"], description=f"{score.method}, {score.shots} shots, seed {score.seed}")
        except KeyboardInterrupt:
            typer.echo("interrupted: these are the scores so far", err=True)
            return study, False
    return study, True


def _show(study: Study) -> None:
    from rich.console import Console
    from rich.table import Table

    from diptych.fewshot.page import kept_lines, notes, shown, subtitle, table
    from diptych.fewshot.study import summary

    rows = list(summary(study.scores))
    shots = sorted({row["shots"] for row in rows})
    typer.echo(subtitle(study))
    printed = Table(box=None)
    printed.add_column("shots", no_wrap=True)
    for count in shots:
        printed.add_column(str(count), justify="right")
    for name, cells in table(rows, shots):
        printed.add_row(name, *(shown(cell) for cell in cells))
    Console().print(printed)
    for line in (*kept_lines(rows), *notes(study)):
        typer.echo(line)
    for problem in study.pictures.skipped[:TOLD]:
        typer.echo(f"skipped {problem.where}: {problem.what}", err=True)


def _write(study: Study, title: str, *, html: Path | None, plot: Path | None) -> None:
    from diptych.fewshot.page import write_page, write_plot

    if html is not None:
        typer.echo(f"page: {write_page(html, study, title=title, command=_command())}")
    if plot is not None:
        typer.echo(f"curves: {write_plot(plot, study)}")


def _command() -> str:
    return "diptych " + shlex.join(sys.argv[1:])
