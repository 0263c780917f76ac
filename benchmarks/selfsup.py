r"""What data2vec learns: a linear probe above the same tower untrained, and what its tower is worth to begin with.

    python -m benchmarks.selfsup --texts captions.jsonl --pictures labels.jsonl [--seeds 3] [--json PATH]

Texts: one word of each caption is hidden, and which of the 60 most frequent longer words it was is read by a logistic
regression from what the tower makes of the place. Pictures: their class is read from the mean of the patches, and a
classifier is trained whole, from nothing and with `init=RUN`. Every regression is fitted on train, its strength is
chosen on dev, and the accuracy is that on test. Runs lie in `--out`; what is done there is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.measure import machine
from benchmarks.results import table
from diptych import models
from diptych.comparing.run import Job, compete_here
from diptych.core.batch import Batch
from diptych.data.images import decode
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.data.tokenizer import Tokenizer
from diptych.fewshot.probe import STRENGTHS, fit_logistic
from diptych.models.selfsup.data2vec import Data2Vec, PictureData2Vec, TextData2Vec
from diptych.train.experiment import load_run
from diptych.train.outcome import Outcome
from diptych.train.plan import make_plan, read_recipe

SPLITS = ("train", "dev", "test")
WORDS, LONGEST, ASKED = 60, 4, {"train": 4000, "dev": 1000, "test": 1000}
"""How many words are told apart, what is too short to be one, and from how many captions of each split."""

Features = Mapping[str, tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]]
"""What a tower makes of each split, and the right classes."""


def probe(features: Features) -> float:
    """Fit a logistic regression for some strengths, and return the accuracy on test of the best one on dev."""
    middle, size = features["train"][0].mean(0), features["train"][0].std(0).clamp(min=1e-6)
    even = {split: ((rows - middle) / size, label) for split, (rows, label) in features.items()}
    classes = 1 + int(max(label.max() for _, label in even.values()))
    found = []
    for strength in STRENGTHS[:4]:
        weight, bias = fit_logistic(*even["train"], classes=classes, strength=strength, steps=100, tolerance=1e-5)
        right = {split: _right(rows @ weight.T + bias, label) for split, (rows, label) in even.items()}
        found.append((right["dev"], right["test"]))
    return max(found)[1]


def _right(scores: Float[Tensor, "n c"], label: Int[Tensor, " n"]) -> float:
    return (scores.argmax(1) == label).float().mean().item()


@torch.no_grad()
def of_pictures(model: Data2Vec, source: Source, tokenizer: Tokenizer) -> Features:
    """Return the summaries of labelled pictures."""
    assert isinstance(model, PictureData2Vec)
    tower, found = model.image_tower, {}
    names = sorted({str(source.row(row).fields["label"]) for row in range(len(source))})
    for split in SPLITS:
        rows = source.rows(split).tolist()
        label = torch.tensor([names.index(str(source.row(row).fields["label"])) for row in rows])
        parts = []
        for part in np.array_split(np.array(rows), max(1, len(rows) // 256)):
            pixels = [torch.as_tensor(decode(source.picture(row), size=tower.image_size)) for row in part.tolist()]
            parts.append(tower(torch.stack(pixels)).summary)
        found[split] = (torch.cat(parts), label)
    return found


@torch.no_grad()
def of_hidden_words(model: Data2Vec, source: Source, tokenizer: Tokenizer) -> Features:
    """Return what the student makes of one hidden word in each caption, always the same one."""
    assert isinstance(model, TextData2Vec)
    texts = {split: list(source.texts(source.rows(split))) for split in SPLITS}
    read = {split: tokenizer(texts[split], model.text_tower.context) for split in SPLITS}
    counts = Counter(read["train"][0][read["train"][1]].tolist()).most_common()
    words = [word for word, _ in counts if len(tokenizer.decode([word]).strip()) >= LONGEST][:WORDS]
    number = torch.full((tokenizer.vocabulary,), -1)
    number[torch.tensor(words)] = torch.arange(len(words))
    random, found = torch.Generator().manual_seed(0), {}
    for split, (tokens, mask) in read.items():
        able = (number[tokens] >= 0) & mask
        rows = torch.randperm(len(tokens), generator=random)
        rows = rows[able[rows].any(1)][: ASKED[split]]
        place = (torch.rand(tokens[rows].shape, generator=random) * able[rows]).argmax(1)
        states = [
            model.states(Batch(tokens=tokens[part], token_mask=mask[part]), _only(where, tokens.shape[1]))
            for part, where in zip(rows.split(500), place.split(500), strict=True)
        ]
        own = torch.cat(states)[torch.arange(len(rows)), place]
        found[split] = (own, number[tokens[rows, place]])
    return found


def _only(place: Int[Tensor, " b"], width: int) -> Tensor:
    return torch.arange(width) == place[:, None]


def jobs(options: argparse.Namespace, side: str, out: Path) -> Iterator[Job]:
    """Yield the runs of data2vec."""
    for name in options.normalise:
        for seed in range(options.seeds):
            own = {"normalise": name, "seed": str(seed), "save_minutes": "0", "workers": "0"}
            own |= {"steps": str(options.steps)} if options.steps else {}
            plan = make_plan("data2vec", recipe=read_recipe(f"data2vec-{side}"), settings=own)
            yield Job(name, plan, out / side / name / f"seed-{seed}", named=side)


def begun(options: argparse.Namespace, out: Path, runs: Sequence[Job]) -> Iterator[Job]:
    """Yield classifiers from nothing, and from each run of data2vec."""
    recipe = dict(read_recipe("data2vec-image").sections["model"])
    known = {name: value for name, value in recipe.items() if name.startswith("image_")}
    plain = {**known, "image_encoder": "masked_vit", "image_pool": "mean", "batch_size": "64", "lr": "1e-3"}
    plain |= {"steps": str(options.tune), "evaluate_every": "1", "save_minutes": "0", "workers": "0"}
    for name, init in [("from nothing", ""), *((f"init={job.name}", str(job.folder)) for job in runs)]:
        for seed in range(options.seeds) if not init else [runs_seed(init)]:
            plan = make_plan("fine_tune", settings={**plain, "seed": str(seed), "init": init})
            yield Job(name, plan, out / "tuned" / name.replace(" ", "-") / f"seed-{seed}", named="pictures")


def runs_seed(folder: str) -> int:
    """Return the seed in the name of a run."""
    return int(folder.rpartition("-")[2])


def hold(every: Sequence[Job], source: Source) -> Iterator[tuple[Job, Outcome]]:
    """Run what was not run yet."""
    for job, outcome in compete_here(list(every), source, quiet=True, begin=lambda job: None):
        if outcome is None:
            raise SystemExit(130)
        if outcome.failed:
            raise SystemExit(f"{job.folder}: {outcome.failed}")
        yield job, outcome


def study(options: argparse.Namespace, side: str, source: Source) -> dict[str, list[float]]:
    """Return accuracies by row of the table, one for each seed."""
    read: Callable[[Data2Vec, Source, Tokenizer], Features] = of_pictures if side == "image" else of_hidden_words
    found: dict[str, list[float]] = {"untrained": []}
    runs = list(jobs(options, side, options.out))
    for job, _ in hold(runs, source):
        run = load_run(job.folder)
        assert isinstance(run.model, Data2Vec)
        if job.name == options.normalise[0]:
            torch.manual_seed(runs_seed(str(job.folder)))
            untrained = models.load("data2vec").build(job.plan.model, run.spec).eval()
            found["untrained"].append(probe(read(untrained, source, run.tokenizer)))
        found.setdefault(f"data2vec, normalise={job.name}", []).append(probe(read(run.model, source, run.tokenizer)))
        print(job.folder, {name: values[-1] for name, values in found.items() if values}, flush=True)
    if side == "image" and options.tune > 0:
        for job, outcome in hold(list(begun(options, options.out, runs)), source):
            found.setdefault(f"classifier, {job.name}", []).append(outcome.scores["accuracy"])
    return found


def main() -> None:
    """Run what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", help="captions")
    parser.add_argument("--pictures", help="pictures with labels")
    parser.add_argument("--normalise", nargs="+", default=["width", "tokens"])
    parser.add_argument("--steps", type=int, default=0, help="of data2vec; 0: as its recipe says")
    parser.add_argument("--tune", type=int, default=300, help="steps of the classifiers; 0: none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("selfsup"), help="folder for all runs")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    told: dict[str, Any] = {"machine": machine()}
    for side, data in (("text", options.texts), ("image", options.pictures)):
        if data is None:
            continue
        found = study(options, side, open_data(data))
        shown = [[name, _shown([100 * value for value in values])] for name, values in found.items()]
        print("\n".join(table((side, "right on test, %"), shown)) + "\n", flush=True)
        told[side] = found
        if options.json is not None:
            options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _shown(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
