r"""One table of adaptation: source-only, MMD, multi-kernel MMD, DANN and target-trained, over pairs of domains.

    python -m benchmarks.adaptation --pacs pacs/labels.jsonl --image-encoder MOBILENET_V2_FOLDER \
        --mnist t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz --scenes flat night --page

PACS: all pairs of its styles, from the cached features of a frozen tower. Scenes, by colour: a small residual network
from nothing. MNIST: a small vision transformer from nothing (the residual network, having learnt from plain digits,
named changed ones at chance). Runs lie in `--out`; what is done there is not run again, and
their weights are thrown away unless `--keep` says otherwise. Every number is an accuracy on the target's test split,
whose labels nothing else has seen. Sizes and strengths were chosen on another draw (`--draw 0`) of digits and scenes.
`--page` puts the tables into `docs/results.md`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.digits import CHANGED, PLAIN, Digits
from benchmarks.measure import machine
from benchmarks.results import put, table
from diptych.comparing.run import Job, compete_here
from diptych.data.domains import Domains
from diptych.data.source import Row, Source
from diptych.data.sources import open_data
from diptych.data.view import View
from diptych.train.checkpoint import WEIGHTS
from diptych.train.plan import make_plan, read_recipe
from diptych.train.state import RESUME

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "source only": ("fine_tune", {}),
    "MMD": ("mmd", {"kernels": "one"}),
    "MK-MMD": ("mmd", {"kernels": "several"}),
    "DANN": ("dann", {}),
    "target-trained": ("fine_tune", {"labels": "target"}),
}


STEPS = 400
SMALL = {"image_encoder": "resnet", "image_size": "24", "image_width": "8", "image_blocks": "1,1"}
SMALL |= {"steps": str(STEPS), "lr": "3e-3", "evaluate_every": "2"}
PATCHES = {"image_encoder": "vit", "image_size": "24", "image_patch": "4", "image_dim": "64", "image_layers": "2"}
PATCHES |= {"steps": str(STEPS), "lr": "2e-3", "evaluate_every": "3"}
"""The studies that begin from nothing."""


class Colours(View):
    """Scenes of one object, each with its colour for a class."""

    def change(self, row: Row, place: int) -> Row:
        """Return the row with another label."""
        return replace(row, fields={**row.fields, "label": row.fields["objects"][0]["colour"]})


@dataclass(frozen=True, slots=True)
class Study:
    """Pairs of domains in one source, and how runs on them are trained."""

    name: str
    source: Source
    pairs: Sequence[tuple[str, str]]
    settings: Mapping[str, str]
    ramp_steps: int
    recipe: str = ""


def studies(options: argparse.Namespace) -> Iterator[Study]:
    """Yield what can be studied with what was given."""
    if options.pacs is not None:
        source = open_data(options.pacs)
        pairs = list(permutations(Domains.read(source).names, 2))
        yield Study("pacs", source, pairs, {"image_encoder": options.image_encoder}, 200, "adapt-frozen")
    if options.mnist is not None:
        yield Study("mnist", Digits(*options.mnist, seed=options.draw), [(PLAIN, CHANGED)], PATCHES, STEPS)
    if options.scenes is not None:
        styles = ",".join(options.scenes)
        what = f"scenes:8000?objects=1&captions=1&distinct=no&size=24&styles={styles}&seed={options.draw}"
        drawn = open_data(what)
        yield Study("scenes", Colours(drawn, how="by colour"), [tuple(options.scenes)], SMALL, STEPS)


def jobs(study: Study, out: Path, seeds: int) -> Iterator[tuple[str, Job]]:
    """Yield all runs of a study, each with its method."""
    recipe = read_recipe(study.recipe) if study.recipe else None
    for source, target in study.pairs:
        for method, (system, own) in METHODS.items():
            for seed in range(seeds):
                given = {"sources": source, "targets": target, "workers": "0", "seed": str(seed), "save_minutes": "0"}
                ramp = {} if system == "fine_tune" else {"ramp_steps": str(study.ramp_steps)}
                plan = make_plan(system, recipe=recipe, settings={**study.settings, **given, **ramp, **own})
                folder = out / study.name / f"{source}-to-{target}" / method.replace(" ", "-") / f"seed-{seed}"
                yield method, Job(f"{source} to {target}".replace("_", " "), plan, folder, named=study.name)


def hold(study: Study, out: Path, seeds: int, *, keep: bool) -> dict[tuple[str, str], list[float]]:
    """Run what was not run yet; return the accuracies by pair of domains and method, a number for each seed."""
    found: dict[tuple[str, str], list[float]] = {}
    every = list(jobs(study, out, seeds))
    start = time.monotonic()
    ended = compete_here([job for _, job in every], study.source, quiet=True, begin=lambda job: None)
    for number, ((method, _), (job, outcome)) in enumerate(zip(every, ended, strict=True), start=1):
        if outcome is None:
            raise SystemExit(130)
        if outcome.failed:
            raise SystemExit(f"{job.folder}: {outcome.failed}")
        found.setdefault((job.name, method), []).append(outcome.scores["target/accuracy"])
        if not keep:
            (job.folder / WEIGHTS).unlink(missing_ok=True)
            shutil.rmtree(job.folder / RESUME, ignore_errors=True)
        sys.stderr.write(f"\r{study.name}: {number} of {len(every)} runs, {time.monotonic() - start:,.0f} s ")
    sys.stderr.write("\n")
    return found


def rows(found: Mapping[tuple[str, str], Sequence[float]]) -> list[list[str]]:
    """Lay out accuracies in percent: a line for each pair and, of several, one for their mean."""
    pairs = list(dict.fromkeys(pair for pair, _ in found))
    lines = [[pair, *(_shown([100 * value for value in found[pair, method]]) for method in METHODS)] for pair in pairs]
    if len(pairs) > 1:
        means = (
            [100 * mean(seed) for seed in zip(*(found[pair, method] for pair in pairs), strict=True)]
            for method in METHODS
        )
        lines.append(["mean", *map(_shown, means)])
    return lines


def _shown(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Run what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pacs", help="a table with pictures, labels, domains and splits")
    parser.add_argument("--image-encoder", default="microsoft/resnet-50", help="frozen, for PACS")
    parser.add_argument("--mnist", nargs=2, type=Path, metavar=("IMAGES", "LABELS"), help="two IDX files")
    parser.add_argument("--scenes", nargs=2, metavar=("SOURCE", "TARGET"), help="two styles of the built-in scenes")
    parser.add_argument("--out", type=Path, default=Path("adaptation"), help="folder for all runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draw", type=int, default=1, help="seed of digits' patterns and scenes; 0 chose the settings")
    parser.add_argument("--keep", action="store_true", help="keep the weights of all runs")
    parser.add_argument("--page", action="store_true", help="put the tables into docs/results.md")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    told: dict[str, Any] = {"machine": machine()}
    for study in studies(options):
        found = hold(study, options.out, options.seeds, keep=options.keep)
        lines = table((study.name, *METHODS), rows(found))
        print("\n".join(lines) + "\n", flush=True)
        if options.page:
            put(f"adaptation-{study.name}", lines)
        told[study.name] = [{"pair": pair, "method": method, "accuracy": v} for (pair, method), v in found.items()]
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
