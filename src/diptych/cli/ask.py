"""The verb `ask`: questions about a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diptych.cli.options import Device, Json, write_json


def ask(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One or several, each in quotes.")],
    count: Annotated[int, typer.Option(min=1, help="Answers to each question, the likeliest first.")] = 3,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Answer questions about a picture, with a system that was trained to, as attention_vqa.

    It chooses among the answers that its training data had.

    Example: `diptych ask runs/answers photo.jpg "what colour is the circle?" "how many are there?"`
    """
    from diptych.core.errors import UserError
    from diptych.data.images import BadPicture
    from diptych.predictor import load

    try:
        found = load(run, device=device).ask(picture, questions, count=count)
    except BadPicture as error:
        raise UserError(f"{picture}: {error}") from None
    for question, answers in zip(questions, found, strict=True):
        if len(questions) > 1:
            typer.echo(question)
        for answer, chance in answers:
            typer.echo(f"{100 * chance:5.1f} %  {answer}")
    told = [
        {"question": question, "answers": [{"text": answer, "probability": chance} for answer, chance in answers]}
        for question, answers in zip(questions, found, strict=True)
    ]
    write_json(json, {"picture": str(picture), "questions": told})
