"""Handwritten digits drawn for their names: what wrong texts (CLS) and texts between texts (INT) bring a GAN.

The 1,797 digits of 8 x 8 pixels that come with scikit-learn, with their names as captions; a small classifier, trained
on the same training digits, says what the drawn ones show. The text tower learns with the critic.

    python -m benchmarks.drawing --out runs/digits
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time

import numpy as np
from jaxtyping import UInt8
from sklearn.datasets import load_digits

from diptych.data.source import SPLITS, Row, Source, hashed_splits
from diptych.train.experiment import prepare, run
from diptych.train.plan import make_plan

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 8
JUDGE = {"image_size": SIDE, "image_patch": 2, "image_dim": 64, "image_layers": 2, "dim": 32, "epochs": 25, "lr": 2e-3}
SIZES = {"noise": 32, "text_code": 32, "generator_width": 64, "critic_width": 64, "text_dim": 32, "text_layers": 1}
TRAIN = {"lr": 5e-4, "betas": (0.5, 0.999), "weight_decay": 0, "clip": 0, "warmup": 0, "schedule": "constant"}
ARTIST = {
    **SIZES,
    **TRAIN,
    "image_size": SIDE,
    "text_heads": 2,
    "text_vocabulary": 300,
    "ema": 0.99,
    "evaluate_every": 25,
    "workers": 0,
}
VARIANTS = {
    "GAN": {"cls_weight": 0.0, "interpolation": 0.0},
    "GAN-CLS": {"interpolation": 0.0},
    "GAN-INT": {"cls_weight": 0.0},
    "GAN-INT-CLS": {},
}


class Digits(Source):
    """The digits of scikit-learn in colour channels, with the name as the label."""

    def __init__(self) -> None:
        found = load_digits()
        self.pixels = np.repeat((found.images * (255 / 16)).round().astype(np.uint8)[..., None], 3, axis=3)
        self.labels = found.target.tolist()
        self.problems = []
        self.name = f"digits: {len(self):,} pictures of {SIDE} px"
        self._splits = hashed_splits(f"digit-{index}" for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, index: int) -> Row:
        """Return the name of the digit."""
        return Row(f"digit-{index}", (), SPLITS[self._splits[index]], {"label": NAMES[self.labels[index]]})

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return the pixels."""
        pixels: UInt8[np.ndarray, "h w 3"] = self.pixels[index]
        return pixels

    def splits(self) -> UInt8[np.ndarray, " n"]:
        """Return the place of each row's split, decided by a hash."""
        return self._splits

    def fingerprint(self) -> str:
        """Name the data; it never changes."""
        return "scikit-learn-digits-names"


def train(system: str, settings: dict[str, object], out: Path) -> dict[str, float]:
    """Train a system on the digits and return its scores on test, and the processor's seconds."""
    began = process_time()
    plan = make_plan(system, settings=settings)
    experiment = prepare(plan, Digits(), out=out, named="scikit-learn's digits")
    _, scores = run(experiment, out=out)
    return {**scores, "seconds": process_time() - began}


def main() -> None:
    """Train the judge, then every variant with every seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; must not hold any yet")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    judged = train("fine_tune", JUDGE, given.out / "judge")
    print(f"the judge names {100 * judged['accuracy']:.1f} % of test digits right", flush=True)
    found: dict[str, list[dict[str, float]]] = {}
    for name, variant in VARIANTS.items():
        for seed in given.seeds:
            more = {"recogniser": str(given.out / "judge"), "steps": given.steps, "seed": seed}
            scores = train("gan_cls", {**ARTIST, **variant, **more}, given.out / f"{name}-{seed}")
            found.setdefault(name, []).append(scores)
            print(name, seed, {key: round(value, 3) for key, value in scores.items()}, flush=True)
    print("\n| system | recognised, % | Frechet | inception | seconds |\n| --- | --- | --- | --- | --- |")
    for name, several in found.items():
        shown = {key: [one[key] for one in several] for key in ("recognised", "frechet", "inception", "seconds")}
        shares = " / ".join(f"{100 * value:.1f}" for value in shown["recognised"])
        rest = " | ".join(f"{np.mean(shown[key]):,.1f}" for key in ("frechet", "inception", "seconds"))
        print(f"| {name} | {shares} | {rest} |")
    if given.json is not None:
        given.json.write_text(json.dumps({"judge": judged, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
