"""Scores of 5,000 images and 25,000 texts: R@1, R@5 and R@10 both ways, and CIDEr-D of one caption an image.

Peers of R@K, written out here: `argsort` ranks every item as released open_clip does (`get_clip_metrics`); `topk` keeps
the best ten each way, as CLIP_benchmark does for its largest K. The floor is one product of the two sides. The peer of
CIDEr-D is pycocoevalcap, left out where it cannot be imported (`pip download --no-deps pycocoevalcap`, unzip, and put
the folder on PYTHONPATH: it needs neither Java nor pycocotools for this score). The words are drawn as words are,
the r-th most frequent 1/r times as often; splitting them by spaces is timed with the rest.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import arguments, gemm_rate, interleave, peak_memory, report
from diptych.metrics.captions import References
from diptych.metrics.retrieval import retrieval

IMAGES, CAPTIONS, WIDTH = 5000, 5, 512
KS = (1, 5, 10)


def pairs(images: int, captions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw unit vectors whose right answers are often, not always, found, and the picture of each text."""
    torch.manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(images, WIDTH), dim=1)
    of_text = torch.arange(images * captions) // captions
    text = image[of_text] + 6 * torch.nn.functional.normalize(torch.randn(len(of_text), WIDTH), dim=1)
    return image, torch.nn.functional.normalize(text, dim=1), of_text


def ours(image: Tensor, text: Tensor, of_text: Tensor) -> list[float]:
    """Count."""
    found = retrieval(image, text, image_id=torch.arange(len(image)), text_id=of_text, ks=KS)
    return [found[way][f"r@{k}"] for way in ("image_to_text", "text_to_image") for k in KS]


def argsort(image: Tensor, text: Tensor, of_text: Tensor) -> list[float]:
    """Sort every row both ways and look where the answer is."""
    scores = image @ text.T
    right = of_text[scores.argsort(dim=1, descending=True)] == torch.arange(len(image))[:, None]
    of_images = right.int().argmax(1)
    of_texts = torch.where(scores.T.argsort(dim=1, descending=True) == of_text[:, None])[1]
    return [(places < k).double().mean().item() for places in (of_images, of_texts) for k in KS]


def topk(image: Tensor, text: Tensor, of_text: Tensor) -> list[float]:
    """Keep the ten best both ways."""
    scores = image @ text.T
    of_images = of_text[scores.topk(max(KS), dim=1).indices] == torch.arange(len(image))[:, None]
    of_texts = scores.T.topk(max(KS), dim=1).indices == of_text[:, None]
    return [hits[:, :k].any(1).double().mean().item() for hits in (of_images, of_texts) for k in KS]


def captions(images: int, each: int, *, vocabulary: int = 8000) -> tuple[list[str], list[list[str]]]:
    """Draw for each image something to say, and a candidate and references that say it in part, of 6 to 12 words."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, vocabulary + 1)
    words = rng.choice(vocabulary, (images, each + 1, 12), p=chance / chance.sum())
    shared = rng.random(words.shape) < 0.6
    said = np.where(shared, words[:, :1], words)
    texts = [
        [" ".join(f"w{word}" for word in one[: rng.integers(6, 13)]) for one in of_image] for of_image in said.tolist()
    ]
    return [text[0] for text in texts], [text[1:] for text in texts]


def cider_once(candidates: list[str], references: list[list[str]]) -> np.ndarray:
    """Take the references apart and score."""
    return References(references).cider(candidates)


def cider_peer(peer: Any, candidates: list[str], references: list[list[str]]) -> np.ndarray:
    """Score with pycocoevalcap."""
    said = {number: [text] for number, text in enumerate(candidates)}
    return np.asarray(peer.Cider().compute_score(dict(enumerate(references)), said)[1])


def race(task: str, contestants: Mapping[str, Callable[[], object]], *, repeats: int) -> list[dict[str, Any]]:
    """Time the ways to one score; ours comes first."""
    timings = interleave(contestants, repeats=repeats)
    us = next(iter(timings.values())).median
    return [
        {"score": task, "way": name, "CPU s": timing.median, "spread": timing.spread, "times ours": timing.median / us}
        for name, timing in timings.items()
    ]


def recall(repeats: int) -> tuple[list[dict[str, Any]], str]:
    """Check and time R@K."""
    data = pairs(IMAGES, CAPTIONS)
    contestants = {"diptych, counted": ours, "argsort, as open_clip": argsort, "topk, as CLIP_benchmark": topk}
    scores = {name: run(*data) for name, run in contestants.items()}
    for name, values in scores.items():
        worst = max(abs(one - other) for one, other in zip(values, scores["diptych, counted"], strict=True))
        assert worst <= 1e-9, f"{name} differs by {worst}"
    rows = race("R@K", {name: partial(run, *data) for name, run in contestants.items()}, repeats=repeats)
    floor = 2 * IMAGES * IMAGES * CAPTIONS * WIDTH / gemm_rate()
    share = floor / rows[0]["CPU s"]
    rows.append(
        {"score": "R@K", "way": "floor: one matrix product", "CPU s": floor, "spread": 0.0, "times ours": share}
    )
    found = ", ".join(f"{value:.4f}" for value in scores["diptych, counted"])
    return rows, f"R@1, 5, 10 of images, then of texts, equal to 1e-9: {found}"


def cider(repeats: int) -> tuple[list[dict[str, Any]], str]:
    """Check and time CIDEr-D."""
    candidates, references = captions(IMAGES, CAPTIONS)
    contestants: dict[str, Callable[[], object]] = {"diptych, arrays": partial(cider_once, candidates, references)}
    note = "CIDEr-D: pycocoevalcap is not at hand"
    try:
        peer = importlib.import_module("pycocoevalcap.cider.cider")
    except ImportError:
        pass
    else:
        mine, theirs = cider_once(candidates, references), cider_peer(peer, candidates, references)
        apart = float(np.abs(mine - theirs).max())
        assert apart <= 1e-9, f"pycocoevalcap differs by {apart}"
        contestants["pycocoevalcap"] = partial(cider_peer, peer, candidates, references)
        note = f"CIDEr-D, mean {mine.mean():.4f}: each image's equal to {apart:.0e}"
    known = References(references)
    contestants["diptych, references known before"] = partial(known.cider, candidates)
    return race("CIDEr-D", contestants, repeats=repeats), note


def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--full", action="store_true", help="also 100,000 x 100,000: minutes, and its memory")

    given = arguments(__doc__, more=more)
    rows, note = recall(given.repeats)
    more_rows, more_note = cider(given.repeats)
    notes = [note, more_note]
    if given.full:
        setup = "from benchmarks.metrics import ours, pairs\ndata = pairs(100_000, 1)\nours(*pairs(9, 1))"
        extra = peak_memory("ours(*data)", setup=setup)
        notes.append(f"100,000 x 100,000: {extra:.0f} MiB more than the vectors")
    title = f"Scores of {IMAGES:,} images x {IMAGES * CAPTIONS:,} texts; R@K from vectors of {WIDTH} numbers"
    report(title, rows + more_rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
