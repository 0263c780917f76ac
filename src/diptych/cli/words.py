"""The verb `words`: what a run knows of words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diptych.cli.options import Device, Json, write_json
from diptych.core.errors import UserError

if TYPE_CHECKING:
    from diptych.train.experiment import OpenRun


def words(
    run: Annotated[Path, typer.Argument(help="The folder that `diptych train --out` wrote.")],
    near: Annotated[list[str] | None, typer.Option(help="Print the nearest words of this one; repeat.")] = None,
    similarity: Annotated[
        list[Path] | None, typer.Option(help="A file of word, word, human rating to compare with; repeat.")
    ] = None,
    concreteness: Annotated[
        Path | None, typer.Option(help="Table with Word and Conc.M: concrete and abstract words apart.")
    ] = None,
    imagine: Annotated[list[str] | None, typer.Option(help="Print the pictures this word looks like; repeat.")] = None,
    pictures: Annotated[str | None, typer.Option(help="Data whose pictures --imagine looks through.")] = None,
    split: Annotated[str, typer.Option(help="Which of them: train, dev, test or all.")] = "all",
    count: Annotated[int, typer.Option(min=1, help="Words or pictures to print.")] = 10,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Print nearest words, compare with human ratings, or find pictures for words, seen or not.

    Example: `diptych words runs/words --near dog --similarity men.tsv`
    """
    from diptych.train.experiment import load_run

    if not (near or similarity or imagine):
        raise UserError("nothing to do: give --near WORD, --similarity FILE or --imagine WORD --pictures DATA")
    if imagine and not pictures:
        raise UserError("--imagine needs pictures to look through: --pictures DATA")
    opened = load_run(run)
    results: dict[str, Any] = {}
    if near:
        results["near"] = _near(opened, near, count)
    if similarity:
        results["similarity"] = _similarity(opened, similarity, concreteness)
    if imagine and pictures:
        results["imagine"] = _imagine(opened, imagine, pictures, split=split, count=count, device=device)
    write_json(json, results)


def _near(run: OpenRun, asked: list[str], count: int) -> dict[str, list[tuple[str, float]]]:
    from diptych.models.embedding import nearest

    found = {word: nearest(run.model, run.tokenizer, word, count) for word in asked}
    for word, members in found.items():
        typer.echo(f"{word}: " + "  ".join(f"{name} {cosine:.2f}" for name, cosine in members))
    return found


def _similarity(run: OpenRun, files: list[Path], concreteness: Path | None) -> dict[str, dict[str, float | None]]:
    from diptych.metrics.similarity import read_concreteness, read_rated, similarity
    from diptych.models.embedding import vectors

    table = vectors(run.model).numpy()
    marks = set(run.tokenizer.special.values())
    known = {word: place for word, place in run.tokenizer.backend.get_vocab().items() if word not in marks}
    concrete = None if concreteness is None else read_concreteness(concreteness)
    found: dict[str, dict[str, float | None]] = {}
    for file in files:
        rated = read_rated(file)
        scores = similarity(rated, known, table, concrete=concrete)
        line = f"{file.name}: Spearman {scores['spearman']:.3f} on {scores['pairs']:.0f} of {len(rated)} pairs"
        for half in ("concrete", "abstract") if concrete is not None else ():
            line += f", {half} {scores[f'{half}/spearman']:.3f} on {scores[f'{half}/pairs']:.0f}"
        typer.echo(line)
        found[str(file)] = {name: value if value == value else None for name, value in scores.items()}  # nan: no JSON
    return found


def _imagine(
    run: OpenRun, asked: list[str], pictures: str, *, split: str, count: int, device: str
) -> dict[str, list[tuple[str, float]]]:
    from diptych.data.sources import open_data
    from diptych.models.embedding import number
    from diptych.tasks.words import look_alike

    numbers = [number(run.tokenizer, word) for word in asked]
    source = open_data(pictures)
    told: dict[str, list[tuple[str, float]]] = {}
    found = look_alike(source, run.model, run.tokenizer, run.spec, numbers, split=split, count=count, device=device)
    for word, members in zip(asked, found, strict=True):
        told[word] = [(source.row(row).key, cosine) for row, cosine in members]
        typer.echo(f"{word}:")
        for key, cosine in told[word]:
            typer.echo(f"  {cosine:.3f}  {key}")
    return told
