"""The verb `search`: find pictures by a text or by a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import INDEX_HELP, Device, Json, write_json


def search(
    index: Annotated[str, typer.Argument(help=f"What `diptych index --out` made: {INDEX_HELP}.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to look for instead of a text.")] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many to find.")] = 10,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only pictures whose column has this value.")
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Look for the words in the stored captions too, and weigh both rankings.")
    ] = False,
    run: Annotated[Path | None, typer.Option(help="The run, when it was moved since.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="PATH", help="Write a page with the pictures found.")] = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Find the pictures nearest to a text, or to a picture.

    Example: `diptych search photos.index "a dog runs through the snow" --top 5`
    """
    from diptych.cli.show import show_hits
    from diptych.core.errors import UserError
    from diptych.indexing import parse_where, run_of
    from diptych.predictor import load
    from diptych.search.opening import open_index, shown

    query = text if text is not None else image
    if query is None or (text is not None and image is not None):
        raise UserError('search takes a text or --image PATH, one of them: diptych search INDEX "a red circle"')
    with open_index(index, read_only=True) as store:
        predictor = load(run_of(index, run), device=device)
        hits = predictor.search(query, store, k=k, where=parse_where(where or []), hybrid=hybrid)
    show_hits(hits)
    results = [{"key": hit.key, "score": hit.score, "text": hit.text, "metadata": hit.metadata} for hit in hits]
    write_json(json, {"query": str(query), "results": results})
    if html is not None:
        from diptych.report.search import write_hits

        typer.echo(f"Page: {write_hits(html, shown(index), str(query), hits)}")
