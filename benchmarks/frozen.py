"""Training a mapper on cached features, against the same loop with open_clip's ClipLoss, and against end to end.

Features of 768 (pictures) and 384 numbers (texts) lie in float16, as the cache keeps them; a linear map each brings
them to 512, and AdamW learns both and the scale. The loops differ in nothing but the loss. The step end to end is that
of the small CLIP of `benchmarks.train`. open_clip is found as `benchmarks/peers.py` says; without it the same
arithmetic, written out, stands in. The floor of a step is 6 products of each map and the 8 N^2 d of the loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contrastive import dense_softmax
from benchmarks.measure import NO_HALF, arguments, gemm_rate, half_pays, interleave, report
from benchmarks.peers import add_option, open_clip
from benchmarks.train import of_ours, pairs, small_clip
from diptych.core.batch import States
from diptych.nn.reader import Reader
from diptych.objectives.contrastive import contrastive
from diptych.train.config import TrainConfig
from diptych.train.optim import build_optimizer

IMAGE, TEXT, WIDTH = 768, 384, 512
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Mapper(nn.Module):
    """A map for each side, and the scale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = Reader(IMAGE, WIDTH), Reader(TEXT, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(2.659))


class Loop:
    """A training loop over cached features under one loss."""

    def __init__(self, features: tuple[Tensor, Tensor], loss: Loss, batch: int) -> None:
        self.features, self.loss, self.batch = features, loss, batch
        self.model = Mapper()
        self.optimizer = build_optimizer(self.model.parameters(), set(), TrainConfig(lr=1e-3))
        self.at = 0

    def step(self) -> float:
        """Learn from the next batch; return the loss before."""
        rows = torch.arange(self.at, self.at + self.batch) % len(self.features[0])
        self.at += self.batch
        image, text = (cached[rows].float() for cached in self.features)
        self.optimizer.zero_grad(set_to_none=True)
        vectors = [F.normalize(read(of(x)), dim=1) for read, x in ((self.model.image, image), (self.model.text, text))]
        value = self.loss(vectors[0], vectors[1], self.model.log_scale.exp())
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(value.detach())


def of(summary: Tensor) -> States:
    """Make states that hold a summary alone."""
    return States(summary.new_zeros(len(summary), 0, 1), torch.zeros(len(summary), 0, dtype=torch.bool), summary)


def cached(pairs: int) -> tuple[Tensor, Tensor]:
    """Draw features of pictures and texts that have to do with each other."""
    torch.manual_seed(0)
    image = torch.randn(pairs, IMAGE)
    text = image @ torch.randn(IMAGE, TEXT) / IMAGE**0.5 + torch.randn(pairs, TEXT)
    return image.half(), text.half()


def whole(count: int, repeats: int) -> float:
    """Return the seconds a pair takes end to end."""
    model, batch = small_clip(), pairs(count)
    trainee = of_ours(model, lambda: model.loss(batch).total)
    timing = interleave({"end to end": partial(trainee.step, half=False)}, repeats=repeats)
    return timing["end to end"].median / count


def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        add_option(parser)
        parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096], help="batch sizes")

    given = arguments(__doc__, more=more)
    losses = open_clip(given.open_clip, "loss")
    theirs: Loss = dense_softmax if losses is None else losses.ClipLoss()
    features, end_to_end, rate = cached(16384), whole(8, given.repeats), gemm_rate()
    rows: list[dict[str, Any]] = []
    for size in given.sizes:
        sides: dict[str, Loss] = {"ClipLoss": theirs, "diptych": contrastive}
        sides |= {"diptych, bf16 tiles": partial(contrastive, tiles="bf16")} if half_pays() else {}
        loops = {name: Loop(features, loss, size) for name, loss in sides.items()}
        traces = [[loop.step() for _ in range(3)] for loop in loops.values()]
        for trace in traces[1:]:
            torch.testing.assert_close(trace, traces[0], rtol=1e-4 if trace is traces[1] else 2e-2, atol=0)
        timings = interleave({name: loop.step for name, loop in loops.items()}, repeats=given.repeats)
        floor = (6 * size * (IMAGE + TEXT) * WIDTH + 8 * size**2 * WIDTH) / rate
        rows += [
            {
                "batch": size,
                "loss": name,
                "pairs/CPU s": size / timing.median,
                "times ClipLoss": timings["ClipLoss"].median / timing.median,
                "times end to end": end_to_end * size / timing.median,
                "of fp32 floor": timing.median / floor,
                "spread": timing.spread,
            }
            for name, timing in timings.items()
        ]
    notes = [
        f"end to end: {1 / end_to_end:.3g} pairs a CPU second; the losses of three steps are equal to 1e-4 (bf16: 2 %)",
        "ClipLoss: " + ("its arithmetic, written out (open_clip is not at hand)" if losses is None else "open_clip's"),
        *(() if half_pays() else (NO_HALF,)),
    ]
    report(f"A mapper on cached features, {IMAGE} and {TEXT} to {WIDTH}", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
