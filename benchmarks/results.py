r"""Make the tables of `docs/results.md` anew: every alignment system on scenes and on a local copy of Flickr8k.

Each contest is one `diptych compare`, so that a killed run goes on when the command is typed again, and only what is
missing is run. With local copies of labelled data, every frozen-tower run of Flickr8k is also used with no shots and
with few (`diptych fewshot`). Hours on two cores; `--only scenes` needs no data at all.

    python -m benchmarks.results --only scenes
    python -m benchmarks.results --flickr8k captions.jsonl --image-encoder MOBILENET_V2_FOLDER \
        --text-encoder MINILM_FOLDER --labelled cifar10/labels.jsonl caltech101/labels.jsonl:name pacs/labels.jsonl
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.measure import machine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
METHODS = "zero-shot,prototype-text,probe,tip-adapter"
SCORES = ("image_to_text/r@1", "image_to_text/r@10", "text_to_image/r@1", "text_to_image/r@10")
HEAD = ("system", "image to text R@1", "R@10", "text to image R@1", "R@10", "trained parameters", "seconds")

ALIGN = (
    "clip",
    "siglip",
    "unicl",
    "align",
    "mapper",
    "hardest=mapper:objective=hardest",
    "adversarial",
    "distill:variant=momentum",
    "vsrn",
    "mutual",
)
PIXELS = (
    "clip",
    "mae_clip",
    "soft=mae_clip:align=distillation",
    "shared",
    "autoencode=shared:objective=autoencode",
    "mvae",
)


@dataclass(frozen=True, slots=True)
class Contest:
    """Systems that are trained alike on some data."""

    data: str
    systems: Sequence[str]
    recipe: str
    settings: Mapping[str, str] = field(default_factory=dict)


def contests(options: argparse.Namespace) -> Iterator[tuple[str, Contest]]:
    """Yield the contests that can be held with what was given."""
    built_in = {"text_encoder": "transformer", "image_train": "all", "text_train": "all", "workers": "1"}
    vit = {"image_encoder": "vit", "image_dim": "96", "image_layers": "3", "image_patch": "8"}
    yield "scenes", Contest("scenes:6000?captions=2", ALIGN, "scenes", built_in)
    if options.flickr8k is not None:
        towers = {"image_encoder": options.image_encoder, "text_encoder": options.text_encoder, "workers": "1"}
        towers |= {"epochs": "6"}  # half of the recipe's: enough to tell systems apart
        systems = [one for one in ALIGN if one != "mutual"]  # its feedback can move no frozen tower
        yield "flickr8k", Contest(options.flickr8k, systems, "flickr8k-frozen", towers)
    yield "pixels", Contest("scenes:6000?captions=2", PIXELS, "scenes", built_in | vit)


def diptych(*words: str) -> None:
    """Run a verb as a user would."""
    subprocess.run([sys.executable, "-m", "diptych", *words], check=True)


def hold(contest: Contest, out: Path, *, seeds: int, jobs: int) -> dict[str, Any]:
    """Hold a contest as far as it was not held yet, and return what it came to."""
    settings = [word for name, value in contest.settings.items() for word in ("--set", f"{name}={value}")]
    record = out.with_suffix(".json")
    given = ("--recipe", contest.recipe, "--seeds", str(seeds), "--jobs", str(jobs), "--json", str(record))
    diptych("compare", contest.data, *contest.systems, "--out", str(out), *given, *settings)
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return found


def few(run: Path, labelled: str, *, seeds: int) -> dict[str, Any]:
    """Use a run with few shots, drawn several times, unless that was done before."""
    data, _, column = labelled.partition(":")
    record = run.with_name(f"{run.name}-{Path(data).parent.name}.json")
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if not known.get("finished"):
        how = ["--methods", METHODS, "--shots", "1,4,16", "--seeds", str(seeds), "--json", str(record)]
        diptych("fewshot", str(run), data, *how, *(["--label-column", column] if column else []))
        known = json.loads(record.read_text(encoding="utf-8"))
    return dict(known)


def spread(value: Mapping[str, Any] | None, *, times: float = 100, digits: int = 1) -> str:
    """Write a mean and the standard deviation over seeds."""
    if value is None:
        return "-"
    deviation = value["deviation"]
    tail = "" if deviation is None else f" ± {times * deviation:.{digits}f}"
    return f"{times * value['mean']:.{digits}f}{tail}"


def retrieval_table(found: Mapping[str, Any]) -> list[str]:
    """Lay out a contest."""
    rows = []
    for entry in found["contestants"]:
        scores, costs = entry["scores"], entry["costs"]
        if not scores:
            rows.append((entry["name"], *["failed"] * 4, "", ""))
            continue
        cells = (spread(scores.get(name)) for name in SCORES)
        trained = f"{costs['trained']['mean'] / 1e6:.2f} M"
        rows.append((entry["name"], *cells, trained, f"{costs['seconds']['mean']:,.0f}"))
    return table(HEAD, rows)


def few_table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Lay out the use with few shots: a row for each system, a column for each method and count."""
    columns: dict[tuple[str, int], None] = {}
    cells: dict[str, dict[tuple[str, int], list[float]]] = {}
    for name, records in runs.items():
        for record in records:
            for row in record["scores"]:
                key = (row["method"], 0 if row["method"] == "zero-shot" else int(row["shots"]))
                columns.setdefault(key)
                cells.setdefault(name, {}).setdefault(key, []).append(float(row["top1"]))
    head = ("system", *(method if not shots else f"{method}, {shots} a class" for method, shots in columns))
    rows = [(name, *(_mean(found.get(key, [])) for key in columns)) for name, found in cells.items()]
    return table(head, rows)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    tail = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{tail}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def put(name: str, lines: Sequence[str]) -> None:
    """Put a table between its marks on the page; what people wrote around it stays."""
    text = PAGE.read_text(encoding="utf-8")
    marks = re.compile(rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
    if not marks.search(text):
        raise SystemExit(f"{PAGE} has no marks <!-- begin {name} --> and <!-- end {name} -->")
    PAGE.write_text(marks.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text), encoding="utf-8")


def main() -> None:
    """Hold what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flickr8k", help="a table with pictures, captions and splits")
    parser.add_argument("--image-encoder", default="microsoft/resnet-50", help="frozen, for Flickr8k")
    parser.add_argument("--text-encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="frozen, for Flickr8k")
    parser.add_argument(
        "--labelled", nargs="*", default=[], help="FILE or FILE:COLUMN, tables with labels, for few shots"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for all runs")
    parser.add_argument("--only", nargs="*", help="names of contests: scenes, pixels, flickr8k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, contest in contests(options):
        if options.only and name not in options.only:
            continue
        found = hold(contest, options.out / name, seeds=options.seeds, jobs=options.jobs)
        put(name, retrieval_table(found))
        for labelled in options.labelled if name == "flickr8k" else ():
            folders = {entry["name"]: options.out / name / entry["name"] / "seed-0" for entry in found["contestants"]}
            trained = {who: folder for who, folder in folders.items() if (folder / "model.safetensors").is_file()}
            runs = {who: [few(folder, labelled, seeds=options.seeds)] for who, folder in trained.items()}
            put(Path(labelled.partition(":")[0]).parent.name, few_table(runs))
    facts = machine()
    put(
        "machine",
        [f"Machine: {facts['cores']} cores, {facts['cpu_vendor']} {facts['cpu_model']}, torch {facts['torch']}."],
    )


if __name__ == "__main__":
    main()
