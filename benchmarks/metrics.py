"""R@1, R@5 and R@10 both ways among 5,000 images and 25,000 texts: counting ranks against sorting and against top-k.

Peers, written out here: `argsort` ranks every item as released open_clip does (`get_clip_metrics`); `topk` keeps the
best ten each way, as CLIP_benchmark does for its largest K. The floor is one product of the two sides.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import arguments, gemm_rate, interleave, peak_memory, report
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


def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--full", action="store_true", help="also 100,000 x 100,000: minutes, and its memory")

    given = arguments(__doc__, more=more)
    data = pairs(IMAGES, CAPTIONS)
    contestants = {"diptych, counted": ours, "argsort, as open_clip": argsort, "topk, as CLIP_benchmark": topk}
    scores = {name: run(*data) for name, run in contestants.items()}
    for name, values in scores.items():
        worst = max(abs(one - other) for one, other in zip(values, scores["diptych, counted"], strict=True))
        assert worst <= 1e-9, f"{name} differs by {worst}"
    timings = interleave({name: partial(run, *data) for name, run in contestants.items()}, repeats=given.repeats)
    us = timings["diptych, counted"].median
    floor = 2 * IMAGES * IMAGES * CAPTIONS * WIDTH / gemm_rate()
    rows = [
        {"way": name, "CPU s": timing.median, "spread": timing.spread, "times ours": timing.median / us}
        for name, timing in timings.items()
    ]
    rows.append({"way": "floor: one matrix product", "CPU s": floor, "spread": 0.0, "times ours": floor / us})
    notes = [
        "R@1, 5, 10 of images, then of texts, equal to 1e-9: "
        + ", ".join(f"{value:.4f}" for value in scores["diptych, counted"])
    ]
    if given.full:
        setup = "from benchmarks.metrics import ours, pairs\ndata = pairs(100_000, 1)\nours(*pairs(9, 1))"
        extra = peak_memory("ours(*data)", setup=setup)
        notes.append(f"100,000 x 100,000: {extra:.0f} MiB more than the vectors")
    report(
        f"Retrieval scores, {IMAGES:,} images x {IMAGES * CAPTIONS:,} texts, {WIDTH} numbers",
        rows,
        notes=notes,
        path=given.json,
    )


if __name__ == "__main__":
    main()
