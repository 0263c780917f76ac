"""Encoding pictures and texts with the small CLIP of `benchmarks.train`: ours, in fp32 and bf16, against open_clip.

Shapes and weights are equal, and so are the vectors, which is checked first. open_clip is found as
`benchmarks/peers.py` says. The floor is what a tower must multiply, at the measured rate of a matrix product.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import NO_HALF, arguments, gemm_rate, half_pays, interleave, report
from benchmarks.peers import MISSING, add_option, open_clip, twin
from benchmarks.train import pairs, small_clip
from diptych.nn.linear import slow_products

Row = dict[str, Any]


def ways(count: int, place: str | None) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """Line up, for each tower, open_clip, ours in float32 and ours in bfloat16."""
    ours, batch, models = small_clip().eval(), pairs(count), open_clip(place, "model")
    found: dict[str, dict[str, Callable[[], Tensor]]] = {"image": {}, "text": {}}
    if models is not None:
        theirs: Any = twin(ours, models).eval()
        pixels = ours.image_tower.normalise(batch.need("image"))
        found["image"]["open_clip fp32"] = lambda: F.normalize(theirs.encode_image(pixels), dim=1)
        found["text"]["open_clip fp32"] = lambda: F.normalize(theirs.encode_text(batch.tokens), dim=1)
    own = (("diptych fp32", False), ("diptych bf16", True))
    for name, half in own if half_pays() else own[:1]:
        found["image"][name] = rounded(lambda: ours.encode_image(batch), half=half)
        found["text"][name] = rounded(lambda: ours.encode_text(batch), half=half)
    return found


def rounded(encode: Callable[[], Tensor], *, half: bool) -> Callable[[], Tensor]:
    """Compute in bfloat16 if asked to."""

    def run() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            return encode().float()

    return run


def race(tower: str, contestants: dict[str, Callable[[], Tensor]], count: int, repeats: int) -> list[Row]:
    """Check that the vectors are equal, and time them."""
    vectors = {name: encode() for name, encode in contestants.items()}
    right = vectors["diptych fp32"]
    for name, found in vectors.items():
        apart = float((found - right).norm(dim=1).max())
        assert apart <= (0.05 if "bf16" in name else 1e-5), (name, apart)
    timings = interleave(contestants, repeats=repeats)
    with FlopCounterMode(display=False) as counter:
        contestants["diptych fp32"]()
    kinds = {name: torch.bfloat16 if "bf16" in name else torch.float32 for name in contestants}
    floors = {kind: counter.get_total_flops() / gemm_rate(dtype=kind) for kind in set(kinds.values())}
    peer = timings.get("open_clip fp32")
    return [
        {
            "tower": tower,
            "way": name,
            "a CPU second": count / timing.median,
            "times open_clip": None if peer is None else peer.median / timing.median,
            "of floor": timing.median / floors[kinds[name]],
            "from ours fp32": float((vectors[name] - right).norm(dim=1).max()),
            "spread": timing.spread,
        }
        for name, timing in timings.items()
    ]


@torch.no_grad()
def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        add_option(parser)
        parser.add_argument("--batch", type=int, default=48, help="pictures, and texts")

    given = arguments(__doc__, more=more)
    found = ways(given.batch, given.open_clip)
    rows = [row for tower, sides in found.items() for row in race(tower, sides, given.batch, given.repeats)]
    notes = ["from ours fp32: the longest distance of unit vectors"]
    notes.append("float32 products by oneDNN" if slow_products() else "float32 products by MKL")
    notes += [] if half_pays() else [NO_HALF]
    notes += [] if "open_clip fp32" in found["image"] else [MISSING]
    report(f"Encoding {given.batch} pictures of 128 pixels and texts of 32 tokens", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
