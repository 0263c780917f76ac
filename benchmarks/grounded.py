r"""What pictures give to words: skip-gram against multimodal skip-gram A and B, over seeds.

    python -m benchmarks.grounded captions.jsonl --image-encoder MOBILENET_V2_FOLDER \
        --ratings men.tsv simlex.tsv wordsim.tsv --concreteness concreteness.tsv [--texts SENTENCES] [--json PATH]

All three learn the same words of the same sentences (recipe `words-flickr8k`), with a frozen tower that is asked once.
Printed are Spearman's correlations with the ratings, on all judged pairs and on the concrete and abstract halves, and
how often a word whose pictures were withheld has its own picture among the first ten of all words'. Runs lie in
`--out`; what is done there is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.measure import machine
from benchmarks.results import table
from diptych.comparing.run import Job, compete_here
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.metrics.similarity import Rated, read_concreteness, read_rated, similarity
from diptych.models.embedding import vectors
from diptych.train.experiment import load_run
from diptych.train.plan import make_plan, read_recipe

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "skip-gram": ("skipgram", {}),
    "multimodal, A": ("multimodal_skipgram", {"variant": "A"}),
    "multimodal, B": ("multimodal_skipgram", {"variant": "B"}),
}
PARTS = {"": "all", "concrete/": "concrete", "abstract/": "abstract"}
PICTURED = ("image_train", "variant")
"""Settings of the recipe that a system without pictures does not have."""


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, Job]]:
    """Yield all runs, each with its method."""
    recipe = read_recipe("words-flickr8k")
    for method, (system, own) in METHODS.items():
        given = {name: str(value) for part in recipe.sections.values() for name, value in part.items()}
        if system == "skipgram":
            given = {name: value for name, value in given.items() if name not in PICTURED}
        else:
            given["image_encoder"] = options.image_encoder
        given |= {"texts": options.texts, "epochs": str(options.epochs), "evaluate_every": "0", "save_minutes": "0"}
        for seed in range(options.seeds):
            plan = make_plan(system, settings={**given, **own, "seed": str(seed)})
            yield method, Job(method, plan, options.out / method.replace(", ", "-") / f"seed-{seed}", named="captions")


def judge(
    folder: Path, ratings: Mapping[str, Sequence[Rated]], concrete: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Compare the words of a run with each list of ratings."""
    run = load_run(folder)
    marks = set(run.tokenizer.special.values())
    known = {word: place for word, place in run.tokenizer.backend.get_vocab().items() if word not in marks}
    own = vectors(run.model).numpy()
    return {name: similarity(rated, known, own, concrete=concrete) for name, rated in ratings.items()}


def hold(options: argparse.Namespace, source: Source) -> dict[str, list[dict[str, Any]]]:
    """Run what was not run yet and judge everything; return what each seed of a method came to."""
    ratings = {path.stem: read_rated(path) for path in options.ratings}
    concrete = read_concreteness(options.concreteness)
    every = list(jobs(options))
    found: dict[str, list[dict[str, Any]]] = {}
    ended = compete_here([job for _, job in every], source, quiet=True, begin=lambda job: None)
    for (method, _), (job, outcome) in zip(every, ended, strict=True):
        if outcome is None:
            raise SystemExit(130)
        if outcome.failed:
            raise SystemExit(f"{job.folder}: {outcome.failed}")
        told = {"similarity": judge(job.folder, ratings, concrete), "scores": dict(outcome.scores)}
        found.setdefault(method, []).append(told)
    return found


def rows(found: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> list[list[str]]:
    """Lay out one list of ratings: a line for each method."""
    lines = []
    for method, seeds in found.items():
        each = [seed["similarity"][name] for seed in seeds]
        imagined = [100 * seed["scores"].get("imagined/r@10", float("nan")) for seed in seeds]
        cells = [_shown([one[f"{part}spearman"] for one in each], digits=3) for part in PARTS]
        lines.append([method, *cells, "" if imagined[0] != imagined[0] else _shown(imagined, digits=1)])
    return lines


def _shown(values: Sequence[float], *, digits: int) -> str:
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def main() -> None:
    """Run what is asked for and print a table for each list of ratings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", help="pictures with captions")
    parser.add_argument("--image-encoder", default="microsoft/resnet-50", help="frozen")
    parser.add_argument("--ratings", type=Path, nargs="+", required=True, help="lists of word, word, rating")
    parser.add_argument("--concreteness", type=Path, required=True, help="table with Word and Conc.M")
    parser.add_argument("--texts", default="", help="further sentences, one a line")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("grounded"), help="folder for all runs")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = hold(options, open_data(options.captions))
    head = ("system", *PARTS.values(), "imagined among the first 10, %")
    for path in options.ratings:
        one = found["skip-gram"][0]["similarity"][path.stem]
        pairs = [f"{one[f'{part}pairs']:.0f} {name}" for part, name in PARTS.items()]
        print(f"{path.stem}: {', '.join(pairs)} of {len(read_rated(path))} pairs\n")
        print("\n".join(table(head, rows(found, path.stem))) + "\n")
    if options.json is not None:
        told = {"machine": machine(), "methods": found}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
