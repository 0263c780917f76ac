"""The command `diptych`: its verbs, and one clear line with exit status 2 for a user's mistake."""

from __future__ import annotations

import os
import sys

import typer

from diptych.cli.ask import ask
from diptych.cli.caption import caption
from diptych.cli.check import check
from diptych.cli.classify import classify
from diptych.cli.compare import compare
from diptych.cli.demo import demo
from diptych.cli.embed import embed
from diptych.cli.evaluate import evaluate
from diptych.cli.explain import explain
from diptych.cli.export import export
from diptych.cli.fewshot import fewshot
from diptych.cli.generate import generate
from diptych.cli.index import index
from diptych.cli.models import models
from diptych.cli.push import push
from diptych.cli.search import search
from diptych.cli.serve import serve
from diptych.cli.train import train
from diptych.cli.words import words
from diptych.core.errors import UserError

app = typer.Typer(
    name="diptych",
    help="Align images and texts in one space, then search, classify and measure. Try `diptych demo` first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    suggest_commands=True,
)
for verb in (
    demo,
    models,
    check,
    train,
    compare,
    evaluate,
    embed,
    index,
    search,
    serve,
    classify,
    caption,
    ask,
    generate,
    explain,
    export,
    push,
    fewshot,
    words,
):
    app.command(no_args_is_help=verb not in {demo, models})(verb)


def main() -> None:
    """Run the command line; a `UserError` becomes one line on standard error and exit status 2."""
    # Threads that wait by spinning lose whole time slices to each other when the machine has other work: on two busy
    # cores a training step took 26 times as long. Must be said before torch is imported, which the verbs do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"diptych: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
