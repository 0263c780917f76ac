"""The verb `caption`: write about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diptych.cli.options import Device, Json, write_json

if TYPE_CHECKING:
    from diptych.core.writing import Writing
    from diptych.predictor import Predictor


def caption(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files.")],
    beams: Annotated[int, typer.Option(min=1, help="Texts kept in mind at a time; 1 is greedy.")] = 5,
    count: Annotated[int, typer.Option(min=1, help="Captions for each picture, the likeliest first.")] = 1,
    nucleus: Annotated[
        float | None, typer.Option(help="Draw among the likeliest words of this mass, as 0.9, instead.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of drawing: below 1 is bolder, above 1 more varied.")] = 1.0,
    length_power: Annotated[float, typer.Option(help="Above 0 prefers longer captions, as 0.5.")] = 0.0,
    longest: Annotated[int, typer.Option(min=1, help="Tokens of a caption at most.")] = 24,
    seed: Annotated[int, typer.Option(help="Of drawing: the same seed gives the same captions.")] = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Write about pictures, with a system that was trained to, as meshed_memory.

    Example: `diptych caption runs/captions dog.jpg cat.jpg --beams 5`
    """
    from diptych.core.errors import UserError
    from diptych.core.runtime import seed_everything
    from diptych.core.writing import Writing
    from diptych.predictor import load

    writing = Writing.parse(
        {
            "beams": beams,
            "count": count,
            "nucleus": nucleus,
            "temperature": temperature,
            "length_power": length_power,
            "longest": longest,
        }
    )
    predictor = load(run, device=device)
    seed_everything(seed)
    results: list[dict[str, Any]] = []
    for path, found in _told(predictor, pictures, writing):
        for text, log_prob in found:
            typer.echo(f"{path}: {text}" + (f"  ({log_prob:.1f})" if count > 1 else ""))
        results.append({"picture": str(path), "captions": [{"text": text, "log_prob": log} for text, log in found]})
    write_json(json, results)
    if not results:
        raise UserError("none of the pictures could be read")


def _told(predictor: Predictor, pictures: list[Path], writing: Writing) -> list[tuple[Path, list[tuple[str, float]]]]:
    """Write about all pictures together or, where one of them cannot be read, about one after another."""
    from diptych.data.images import BadPicture

    try:
        return list(zip(pictures, predictor.caption(pictures, writing), strict=True))
    except BadPicture as error:
        if len(pictures) == 1:
            typer.echo(f"skipped {pictures[0]}: {error}", err=True)
            return []
    return [told for path in pictures for told in _told(predictor, [path], writing)]
