r"""What the joint objective has that each of its parts alone has not, on scenes and on a local copy of Flickr8k.

The same network (`mae_clip`) learns three times from the same pictures in the same order: to find words alone, to paint
hidden patches alone, and both. Each is then asked three things on pictures it never saw:

- retrieval: mean R@1 of both directions on the test split;
- painting: the squared error on hidden patches, against filling them with the mean of what is visible (1);
- probe: how well logistic regression names classes from the mean of the encoder's patch tokens. Classes are colour and
  shape of other scenes of one object, or the labels of another data set. "untrained" is the same encoder, as drawn.

Trainings are one `diptych compare`, so that a killed run goes on. Weights are those of the last
step: nothing is chosen.

    python -m benchmarks.joint --out FOLDER [--pairs 2000] [--seeds 3] [--json PATH]
    python -m benchmarks.joint --out FOLDER --flickr8k captions.jsonl --labelled cifar10/labels.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmarks.measure import machine
from benchmarks.results import diptych, spread, table
from diptych.core.batch import Batch
from diptych.data.loader import Example, Loader
from diptych.data.scenes import Scenes
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.encoders.masked import MaskedViT, patch_noise, reconstruct
from diptych.fewshot.labels import read_labels
from diptych.fewshot.probe import linear_probe
from diptych.fewshot.shots import Shots
from diptych.models.align.mae_clip import MAECLIP, build
from diptych.predictor import Predictor, load
from diptych.train.experiment import SCORES

PARTS = {
    "words alone": "contrast=mae_clip:reconstruct_weight=0",
    "painting alone": "paint=mae_clip:align_weight=0",
    "joint": "joint=mae_clip",
    "joint, a tenth of the words": "joint-tenth=mae_clip:align_weight=0.1",
}
PHOTOGRAPHS = {
    "image_size": "64",
    "image_patch": "8",
    "image_dim": "128",
    "image_layers": "3",
    "text_dim": "128",
    "text_context": "32",
    "dim": "128",
    "normalise_patches": "true",
    "epochs": "12",
    "evaluate_every": "12",
}


@dataclass(frozen=True, slots=True)
class Classes:
    """Pictures with classes, to learn a probe from and to try it on."""

    name: str
    source: Source
    learn: tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]
    asked: tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]


def scene_classes(size: int) -> Iterator[Classes]:
    """Yield colour and shape of scenes of one object, which no training saw."""
    scenes = Scenes(pictures=3000, size=size, objects=(1, 1), seed=99, distinct=False)
    for name in ("colour", "shape"):
        words = sorted({getattr(scenes.scene(row).objects[0], name) for row in range(len(scenes))})
        label = [words.index(getattr(scenes.scene(row).objects[0], name)) for row in range(len(scenes))]
        learn, asked = np.split(np.arange(len(scenes)), [2 * len(scenes) // 3])
        numbers = np.array(label, dtype=np.int64)
        yield Classes(name, scenes, (learn, numbers[learn]), (asked, numbers[asked]))


def labelled_classes(data: str) -> Classes:
    """Read the classes of another data set, split as it says."""
    path, _, column = data.partition(":")
    source = open_data(path)
    found = read_labels(source, column=column or None)
    return Classes(Path(path).parent.name, source, (found.pool, found.pool_label), (found.test, found.test_label))


def pixels(predictor: Predictor, source: Source, rows: Int64[np.ndarray, " n"]) -> Iterator[Batch]:
    """Read pictures as the model's training did."""
    size, crop = predictor.spec.image_size, predictor.crop
    yield from Loader(source, rows, _stack, batch_size=256, size=size, crop=crop).epoch(0)


def _stack(examples: list[Example]) -> Batch:
    return Batch(image=torch.stack([example.image for example in examples if example.image is not None]))


@torch.no_grad()
def features(
    tower: MaskedViT, predictor: Predictor, source: Source, rows: Int64[np.ndarray, " n"]
) -> Float[Tensor, "n d"]:
    """Return the mean of the patch tokens of every picture."""
    found = [tower(batch.need("image")) for batch in pixels(predictor, source, rows)]
    return torch.cat([states.tokens.float().mean(1) for states in found])


def probe(tower: MaskedViT, predictor: Predictor, classes: Classes) -> float:
    """Return the accuracy of logistic regression; a fifth of the pictures to learn from chooses its strength."""
    (rows, label), (asked, truth) = classes.learn, classes.asked
    image, tested = (features(tower, predictor, classes.source, some) for some in (rows, asked))
    middle, scale = image.mean(0), image.std(0).clamp(min=1e-6)
    image, tested = (image - middle) / scale, (tested - middle) / scale
    chosen = np.random.default_rng(0).permutation(len(rows)) % 5 == 0
    text = torch.zeros(int(label.max()) + 1, image.shape[1])
    numbers = torch.from_numpy(label)
    shots = Shots(image[~chosen], numbers[~chosen], image[chosen], numbers[chosen], text, scale=1.0)
    scores = linear_probe(shots).score(tested)
    return float((scores.argmax(1).numpy() == truth).mean())


@torch.no_grad()
def painting(model: MAECLIP, predictor: Predictor, source: Source) -> float:
    """Return the squared error on hidden patches against that of the mean of what is visible, in the loss's units."""
    ours = plain = 0.0
    for batch in pixels(predictor, source, source.rows("test")):
        image = batch.need("image")
        tower = model.image_tower
        noise = patch_noise(len(image), tower.side**2, training=False, device=image.device)
        made = reconstruct(tower, model.decoder, image, noise, keep=model.keep)
        truth, said = made.patches, made.predicted
        visible = truth[~made.hidden].view(len(truth), -1, 3).mean(1)  # of each colour
        filled = visible.repeat(1, truth.shape[2] // 3)[:, None].expand_as(truth)
        if model.config.normalise_patches:
            middle, scale = truth.mean(2, keepdim=True), truth.std(2, keepdim=True) + 1e-3
            said = said * scale + middle  # what the loss does not ask for is told: mean and contrast of each patch
            filled = middle.expand_as(truth)
        ours += float((said - truth)[made.hidden].square().sum())
        plain += float((filled - truth)[made.hidden].square().sum())
    return ours / plain


def measure(run: Path, source: Source, classes: list[Classes], *, drawn: bool) -> dict[str, float]:
    """Ask one run all three things; with `drawn`, its encoder as it was before training."""
    predictor = load(run, device="cpu")
    model = predictor.model
    assert isinstance(model, MAECLIP)
    if drawn:
        torch.manual_seed(0)
        fresh = build(model.config, predictor.spec).eval()
        return {one.name: probe(fresh.image_tower, predictor, one) for one in classes}
    retrieval = float(json.loads((run / SCORES).read_text(encoding="utf-8"))["test"]["mean_r@1"])
    asked = {one.name: probe(model.image_tower, predictor, one) for one in classes}
    return {"r@1": retrieval, "painting": painting(model, predictor, source), **asked}


def contest(data: str, out: Path, *, seeds: int, settings: dict[str, str], labelled: list[str]) -> dict[str, object]:
    """Train all parts on some data and ask them."""
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    given = ("--out", str(out), "--recipe", "scenes-mae-clip", "--seeds", str(seeds))
    diptych("compare", data, *PARTS.values(), *given, *words)
    source = open_data(data)
    size = int(settings.get("image_size", "32"))
    classes = [labelled_classes(one) for one in labelled] or list(scene_classes(size))
    rows: dict[str, object] = {}
    for name, part in PARTS.items():
        folder = out / part.partition("=")[0]
        runs = [measure(folder / f"seed-{seed}", source, classes, drawn=False) for seed in range(seeds)]
        rows[name] = _summed(runs)
    rows["untrained"] = _summed([measure(folder / "seed-0", source, classes, drawn=True)])
    return rows


def _summed(runs: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return mean and deviation of every score."""
    found = {name: np.array([run[name] for run in runs]) for name in runs[0]}
    return {
        name: {"mean": float(values.mean()), "deviation": float(values.std(ddof=1)) if len(values) > 1 else None}
        for name, values in found.items()
    }


def shown(rows: dict[str, object]) -> list[str]:
    """Lay out one contest."""
    columns = list(dict.fromkeys(name for row in rows.values() if isinstance(row, dict) for name in row))
    head = ("learnt", *(f"probe: {name}" if name not in ("r@1", "painting") else name for name in columns))
    lines = [
        (name, *(spread(row.get(column), **_units(column)) for column in columns))
        for name, row in rows.items()
        if isinstance(row, dict)
    ]
    return table(head, lines)


def _units(column: str) -> dict[str, int]:
    return {"times": 1, "digits": 3} if column == "painting" else {"times": 100, "digits": 1}


def main() -> None:
    """Hold the contests and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--pairs", type=int, nargs="*", default=[2000], help="scenes to learn from")
    parser.add_argument("--steps", type=int, default=700, help="of 128 pairs, on scenes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--flickr8k", help="a table with pictures, captions and splits, in the place of scenes")
    parser.add_argument("--labelled", nargs="*", default=[], help="FILE or FILE:COLUMN with classes, for --flickr8k")
    parser.add_argument("--json", type=Path, help="write the results to this file as well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {"machine": machine()}
    contests = [(options.flickr8k, "flickr8k", PHOTOGRAPHS, options.labelled)] if options.flickr8k else []
    for pairs in () if options.flickr8k else options.pairs:
        settings = {"steps": str(options.steps), "evaluate_every": "1000"}
        contests.append((f"scenes?pictures={pairs}&captions=2&objects=1-2", f"scenes-{pairs}", settings, []))
    for data, name, settings, labelled in contests:
        rows = contest(data, options.out / name, seeds=options.seeds, settings=settings, labelled=labelled)
        found[name] = rows
        print("\n".join([f"{data}:", *shown(rows)]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
