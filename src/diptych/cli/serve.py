"""The verb `serve`: a trained run as an HTTP API and a web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from diptych.cli.options import INDEX_HELP, Device


def serve(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    index: Annotated[
        str | None, typer.Option(help=f"What `diptych index --out` made, to search in: {INDEX_HELP}.")
    ] = None,
    pictures: Annotated[
        str, typer.Option(metavar="DATA", help="Where the pictures of the index are, when they were moved since.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="DIPTYCH_TOKEN", help="Let in only who sends it; better given as DIPTYCH_TOKEN.")
    ] = "",
    name: Annotated[
        list[str] | None, typer.Option(help="A name by which it may be called, as behind a proxy; repeat.")
    ] = None,
    max_mb: Annotated[float, typer.Option(help="Megabytes of a request at most.")] = 20.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an uploaded picture at most.")] = 50_000_000,
    seconds: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 30.0,
    waiting: Annotated[int, typer.Option(min=1, help="Requests in work at a time; more are told to come back.")] = 256,
    max_batch: Annotated[int, typer.Option(min=1, help="Texts or pictures computed together at most.")] = 32,
    device: Device = "auto",
) -> None:
    """Serve a run: a page to search, tag and explain pictures with, and the same as an API. Ctrl-C stops it.

    Example: `diptych serve runs/mine --index photos.index`
    """
    try:
        from diptych.serve.app import make_app
        from diptych.serve.run import listen, serve_app
    except ModuleNotFoundError as error:
        from diptych.core.errors import UserError

        raise UserError(f"serve needs {error.name}: pip install 'diptych[serve]'") from None
    from diptych.predictor import load
    from diptych.search.opening import shown
    from diptych.serve.collection import Collection
    from diptych.serve.settings import ServeSettings, hosts_for
    from diptych.serve.telemetry import log_lines

    settings = ServeSettings.parse(
        {
            "token": token,
            "hosts": hosts_for(host, name or []),
            "max_mb": max_mb,
            "max_pixels": max_pixels,
            "seconds": seconds,
            "waiting": waiting,
            "max_batch": max_batch,
        }
    )
    predictor = load(run, device=device)
    collection = None if index is None else Collection.open(index, predictor, data=pictures)
    app = make_app(predictor, collection, settings)
    opened = listen(host, port)
    log_lines()

    def announce() -> None:
        address = f"http://{f'[{host}]' if ':' in host else host}:{opened.getsockname()[1]}/"
        if collection is not None:
            typer.echo(f"{len(collection):,} pictures of {shown(index or '')}")
        secret = f"#token={quote(token)}" if token else ""
        typer.echo(f"Open {address}{secret}    the API: {address}docs    stop: Ctrl-C")
        if settings.hosts == ("*",) and not token:
            typer.echo("Anyone who reaches this machine can search its pictures: --token asks for a word", err=True)

    serve_app(app, opened, seconds=seconds, announce=announce)
