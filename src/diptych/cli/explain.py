"""The verb `explain`: why a picture meets a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diptych.cli.options import Device, Json, write_json


def explain(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    text: Annotated[str | None, typer.Argument(help="A text, or a question; a captioner's own when not given.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to draw it: .png, .jpg, .pdf or .svg.")] = Path(
        "why.png"
    ),
    method: Annotated[
        str, typer.Option(help="auto, gradcam, hirescam, relevance, rollout, occlusion, random.")
    ] = "auto",
    against: Annotated[
        list[str] | None, typer.Option(help="Another text: show what speaks for the first and not for it; repeat.")
    ] = None,
    answer: Annotated[str, typer.Option(help="To the question: explain this one, not the likeliest.")] = "",
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Show where in a picture, and by which words, a text meets it.

    A captioner shows where each of its words comes from, an answerer where its answers to a question do.

    Example: `diptych explain runs/mine dog.jpg "a dog runs through the snow" -o why.png`
    """
    from diptych.core.errors import UserError
    from diptych.core.model import Captioner
    from diptych.data.images import BadPicture, size_of
    from diptych.predictor import load
    from diptych.report.why import draw_why

    predictor = load(run, device=device)
    try:
        if text is None and not isinstance(predictor.model, Captioner):
            raise UserError('explain takes a text: diptych explain RUN PICTURE "a red circle"')
        told = predictor.caption(picture)[0][0][0] if text is None else text
        found = predictor.explain(picture, told, method=method, against=against or (), answer=answer)
        height, width = size_of(picture)
    except BadPicture as error:
        raise UserError(f"{picture}: {error}") from None
    for name, chance in found.answers:
        typer.echo(f"{100 * chance:5.1f} %  {name}")
    typer.echo(f"{found.unit} {found.score:.3f}, picture by {found.method}, words by {found.word_method}")
    typer.echo("  ".join(f"{word} {weight:.2f}" for word, weight in found.words))
    draw_why(out, found, proportions=height / width if predictor.crop == "squash" else 1.0)
    typer.echo(f"Drawn: {out}")
    words = [{"word": word, "weight": weight} for word, weight in found.words]
    parts = [{"name": name, "heat": _rows(heat)} for name, heat in found.parts()]
    write_json(
        json,
        {
            "picture": str(picture),
            "text": found.text,
            "score": found.score,
            "method": found.method,
            "word_method": found.word_method,
            "words": words,
            "answers": [{"text": name, "probability": chance} for name, chance in found.answers],
            "heat": _rows(found.heat),
            "parts": parts,
        },
    )


def _rows(heat: Any) -> list[list[float]]:
    return [[round(float(value), 4) for value in row] for row in heat]
