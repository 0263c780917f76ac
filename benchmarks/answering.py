r"""Make the tables of answering in `docs/results.md` anew: every fusion beside what sees no picture.

Each contest is one `diptych compare`, so that a killed run goes on when the command is typed again. That on scenes
begins with the image tower of a run that described them (benchmarks/begun.py).

    python -m benchmarks.answering --only scenes-answers
    python -m benchmarks.answering --daquar qa.jsonl --image-encoder MOBILENET_V2_FOLDER --text-encoder MINILM_FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.begun import captions
from benchmarks.results import Contest, hold, put, spread, table

SCENES = "scenes:20000?captions=1"
KINDS = ("colour", "shape", "size", "count", "exists", "relation")
FUSIONS = ("concat", "sum", "gated", "tensor", "low_rank", "mlb", "mutan", "weighted")
ALL = ("question_only", "attention=attention_vqa", *(f"{name}=attention_vqa:fusion={name}" for name in FUSIONS))


def contests(options: argparse.Namespace) -> Iterator[tuple[str, Contest]]:
    """Yield the contests that can be held with what was given."""
    if not options.only or "scenes-answers" in options.only:
        begun = f"cross_attention=attention_vqa:init={captions(options.out)}"
        yield "scenes-answers", Contest(SCENES, ("question_only", begun), "scenes-answers", {"workers": "1"})
    if options.daquar is not None:
        towers = {"image_encoder": options.image_encoder, "text_encoder": options.text_encoder, "workers": "1"}
        yield "daquar", Contest(options.daquar, ALL, "daquar", towers)


def answer_table(found: Mapping[str, Any], kinds: tuple[str, ...] = ()) -> list[str]:
    """Lay out a contest: a row for each system, the constant answers last."""
    head = ("system", "accuracy", "without the picture", *kinds, "trained parameters", "seconds")
    rows, constant = [], {}
    for entry in found["contestants"]:
        scores, costs = entry["scores"], entry["costs"]
        if not scores:
            rows.append((entry["name"], "failed", *[""] * (len(head) - 2)))
            continue
        constant = scores
        cells = [spread(scores.get(name)) for name in ("accuracy", "accuracy_blind")]
        cells += [spread(scores.get(f"{kind}/accuracy")) for kind in kinds]
        trained = f"{costs['trained']['mean'] / 1e6:.2f} M"
        rows.append((entry["name"], *cells, trained, f"{costs['seconds']['mean']:,.0f}"))
    cells = [spread(constant.get(f"{kind}/accuracy_constant")) for kind in kinds]
    rows.append(("always the commonest answer", spread(constant.get("accuracy_constant")), "", *cells, "0", ""))
    return table(head, rows)


def main() -> None:
    """Hold what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daquar", help="a table with pictures, questions, answers and splits")
    parser.add_argument("--image-encoder", default="microsoft/resnet-50", help="frozen, for DAQUAR")
    parser.add_argument("--text-encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="frozen, for DAQUAR")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for all runs")
    parser.add_argument("--only", nargs="*", help="names of contests: scenes-answers, daquar")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, contest in contests(options):
        if not options.only or name in options.only:
            found = hold(contest, options.out / name, seeds=options.seeds, jobs=options.jobs)
            put(name, answer_table(found, KINDS if name == "scenes-answers" else ()))


if __name__ == "__main__":
    main()
