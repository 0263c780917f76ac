"""The verb `demo`: the main job from end to end on the built-in data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diptych.cli.options import Json, write_json

if TYPE_CHECKING:
    from diptych.data.source import Source

DATA = "scenes?captions=2"
RECIPE = "scenes"
SEARCHED = (0, 100, 200)
"""Places among the test pictures whose second caption is searched for."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    json: Json = None,
) -> None:
    """Draw scenes, train a CLIP on them from nothing, score it, index the pictures and search them. About 3 minutes.

    Example: `diptych demo --out demo`
    """
    from time import perf_counter

    from diptych.cli.show import show_scores
    from diptych.core.abilities import abilities
    from diptych.data.sources import open_data
    from diptych.metrics.shown import nested
    from diptych.report.card import write_card
    from diptych.report.run import write_report
    from diptych.train.experiment import prepare, run
    from diptych.train.plan import make_plan, read_recipe

    folder, command = out / "run", f'diptych train clip "{DATA}" --recipe {RECIPE} --out {out / "run"}'
    source = open_data(DATA)
    typer.echo(f"1. The data: {source.name}.")
    typer.echo(f"2. Training CLIP from nothing, the same as: {command}")
    start = perf_counter()
    experiment = prepare(make_plan("clip", recipe=read_recipe(RECIPE)), source, out=folder, named=DATA, command=command)
    result, scores = run(experiment, out=folder, command=f"diptych demo --out {out}")
    if result.stopped == "interrupted":
        raise typer.Exit(130)
    seconds = perf_counter() - start
    typer.echo(f"3. Trained and scored in {seconds:,.0f} s, on pictures that training never saw:")
    show_scores(scores, split="test")
    page = write_report(folder, experiment.data, experiment.model, scores=scores)
    write_card(folder, scores=scores, offers=abilities(experiment.model))
    typer.echo(f"4. Searching the test pictures, indexed in {out / 'index'}:")
    _search(out, folder, source)
    write_json(json, {**nested(scores), "seconds": seconds})
    typer.echo(f"\n5. Look at {page} and {out / 'search-1.html'}. Then try your own:")
    typer.echo(f'   diptych search {out / "index"} "a large purple ring left of a small orange moon"')
    typer.echo("   diptych train clip YOUR.csv --out runs/mine        (columns with pictures and captions are found)")
    typer.echo("   diptych train --help")


def _search(out: Path, folder: Path, source: Source) -> None:
    """Index the test pictures and look for some by what is said of them."""
    from diptych.cli.show import show_hits
    from diptych.indexing import add_pictures, open_for
    from diptych.predictor import load
    from diptych.report.search import write_hits

    predictor, rows = load(folder), source.rows("test")
    with open_for(predictor, folder, out / "index") as store:
        add_pictures(store, predictor, source, rows, named=DATA)
        for number, place in enumerate(SEARCHED, start=1):
            query = source.row(int(rows[place])).captions[1]
            hits = predictor.search(query, store, k=6)
            typer.echo(f"\n   {query}")
            show_hits(hits[:3])
            write_hits(out / f"search-{number}.html", out / "index", query, hits)
