r"""Make the tables of captioning in `docs/results.md` anew: both captioners on scenes, and Flickr8k in two stages.

Each training goes on where it was stopped when the command is typed again. Those on scenes begin with an image tower
that was taught single objects (benchmarks/begun.py).

    python -m benchmarks.captioning --only scenes-captions
    python -m benchmarks.captioning --flickr8k captions.jsonl --image-encoder MOBILENET_V2_FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.begun import DESCRIBED, shapes
from benchmarks.results import Contest, diptych, hold, put, spread, table
from diptych.train.experiment import SCORES

BOTH = ("meshed_memory", "cnn_captioner")
COLUMNS = {"CIDEr-D": "cider_d", "BLEU-4": "bleu4", "ROUGE-L": "rouge_l", "words": "words"}
SHARE = 0.6
"""Epochs of self-critical training."""


def scenes_table(found: Mapping[str, Any]) -> list[str]:
    """Lay out the contest on scenes: the share of true captions first."""
    head = ("system", "true of the picture", *COLUMNS, "trained parameters", "seconds")
    rows = []
    for entry in found["contestants"]:
        scores, costs = entry["scores"], entry["costs"]
        cells = [spread(scores.get(name), times=1, digits=2) for name in COLUMNS.values()]
        trained = f"{costs['trained']['mean'] / 1e6:.2f} M"
        true = spread(scores.get("true"))
        rows.append((entry["name"], true, *cells, trained, f"{costs['seconds']['mean']:,.0f}"))
    return table(head, rows)


def stages(data: str, encoder: str, out: Path) -> list[str]:
    """Train by words, go on by CIDEr-D, and lay out the scores on the test split after each."""
    words, reward = out / "words", out / "reward"
    common = ("--recipe", "flickr8k-caption", "--set", f"image_encoder={encoder}")
    if not (words / SCORES).is_file():
        diptych("train", "meshed_memory", data, "--out", str(words), *common, "--set", "self_critical=false")
    if not (reward / SCORES).is_file():
        later = ("--set", f"init={words}", "--set", "self_critical=true")
        later += ("--set", f"stage_epochs=words:0,reward:{SHARE}")
        diptych("train", "meshed_memory", data, "--out", str(reward), *common, *later)
    rows = []
    for name, run in (("words (cross-entropy)", words), ("then CIDEr-D (self-critical)", reward)):
        scores = json.loads((run / SCORES).read_text(encoding="utf-8"))
        result = json.loads((run / "config.json").read_text(encoding="utf-8"))["result"]
        cells = [f"{scores[key]:.3f}" if key != "words" else f"{scores[key]:.1f}" for key in COLUMNS.values()]
        rows.append((name, *cells, f"{result['seconds']:,.0f}"))
    return table(("meshed_memory learns", *COLUMNS, "seconds"), rows)


def main() -> None:
    """Train what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flickr8k", help="a table with pictures, captions and splits")
    parser.add_argument("--image-encoder", default="microsoft/resnet-50", help="frozen, for Flickr8k")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for all runs")
    parser.add_argument("--only", nargs="*", help="names of tables: scenes-captions, flickr8k-captions")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.only or "scenes-captions" in options.only:
        settings = {"workers": "1", "init": str(shapes(options.out))}
        contest = Contest(DESCRIBED, BOTH, "scenes-captions", settings)
        found = hold(contest, options.out / "scenes-captions", seeds=options.seeds, jobs=0)
        put("scenes-captions", scenes_table(found))
    if options.flickr8k is not None and (not options.only or "flickr8k-captions" in options.only):
        put("flickr8k-captions", stages(options.flickr8k, options.image_encoder, options.out / "flickr8k-captions"))


if __name__ == "__main__":
    main()
