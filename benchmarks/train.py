"""One training step: a small CLIP against open_clip's, and a small masked autoencoder against transformers' ViTMAE.

Both sides have the same shapes, weights, pictures, texts and AdamW, and compute the same loss (checked before anything
is timed). The CLIP is a ViT-S/16 at 128 pixels (65 tokens) with a text tower of 6 layers at 32 tokens; the autoencoder
has a narrow encoder of 12 layers, a decoder of 4 and 64 patches, of which 75 % are hidden. open_clip is found as
`benchmarks/peers.py` says. The floor is what the model must multiply, at the measured rate of a matrix product.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import NO_HALF, arguments, gemm_rate, half_pays, interleave, report
from benchmarks.peers import MISSING, add_option, open_clip, twin, twin_mae
from diptych.core.batch import Batch, DataSpec
from diptych.encoders.masked import reconstruct
from diptych.models.align import clip, mae
from diptych.nn.linear import slow_products
from diptych.objectives.masked_pixels import masked_pixels
from diptych.train.config import TrainConfig
from diptych.train.optim import build_optimizer

VOCABULARY, CONTEXT = 16384, 32
CLIP_SIZE, MAE_SIZE, MAE_PATCH = 128, 128, 16
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trainee:
    """One model in training: what it learns and how its loss is computed."""

    model: nn.Module
    loss: Callable[[], Tensor]
    optimizer: AdamW

    def step(self, *, half: bool) -> float:
        """Take one step and return the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())


def of_ours(model: nn.Module, loss: Callable[[], Tensor]) -> Trainee:
    """Train a model as our trainer does; the rate is small, so that turns do not change what is compared."""
    return Trainee(model, loss, build_optimizer(model.parameters(), set(), TrainConfig(lr=1e-7)))


def of_peer(model: nn.Module, loss: Callable[[], Tensor]) -> Trainee:
    """Train a peer with torch's AdamW as it is found."""
    return Trainee(model, loss, AdamW(model.parameters(), lr=1e-7))


def small_clip() -> clip.CLIP:
    """Build the small CLIP, of 39 million parameters."""
    torch.manual_seed(0)
    image = {"image_patch": 16, "image_dim": 384, "image_layers": 12, "image_heads": 6}
    text = {"text_dim": 384, "text_layers": 6, "text_heads": 6, "dim": 384}
    return clip.build(
        clip.Config(**image, **text), DataSpec(image_size=CLIP_SIZE, vocabulary=VOCABULARY, context=CONTEXT)
    )


def pairs(count: int) -> Batch:
    """Draw pictures and texts of full length, which end in the largest token as open_clip expects."""
    torch.manual_seed(1)
    tokens = torch.randint(1, VOCABULARY - 1, (count, CONTEXT))
    tokens[:, -1] = VOCABULARY - 1
    return Batch(
        image=torch.rand(count, 3, CLIP_SIZE, CLIP_SIZE),
        tokens=tokens,
        token_mask=torch.ones(count, CONTEXT, dtype=torch.bool),
        pair_id=torch.arange(count),
    )


def clips(count: int, place: str | None) -> dict[str, Trainee]:
    """Line up open_clip and ours."""
    ours, batch = small_clip(), pairs(count)
    found = {"diptych": of_ours(ours, lambda: ours.loss(batch).total)}
    models, losses = open_clip(place, "model"), open_clip(place, "loss")
    if models is None or losses is None:
        return found
    theirs, compare = twin(ours, models), losses.ClipLoss()
    pixels = ours.image_tower.normalise(batch.need("image"))

    def loss() -> Tensor:
        value: Tensor = compare(*theirs(pixels, batch.tokens)[:3])
        return value

    return {"open_clip": of_peer(theirs, loss), **found}


def small_mae(mask: float) -> mae.MAE:
    """Build the small masked autoencoder."""
    torch.manual_seed(0)
    sizes = {"image_patch": MAE_PATCH, "image_dim": 192, "image_layers": 12, "image_heads": 3}
    decoder = {"decoder_dim": 128, "decoder_layers": 4, "decoder_heads": 4}
    return mae.build(mae.Config(mask=mask, **sizes, **decoder), DataSpec(image_size=MAE_SIZE))


def maes(count: int) -> dict[str, Trainee]:
    """Line up transformers' ViTMAE and ours, hiding the same patches."""
    ours = small_mae(0.75)
    torch.manual_seed(1)
    image, noise = torch.rand(count, 3, MAE_SIZE, MAE_SIZE), torch.rand(count, ours.image_tower.side**2)
    theirs = twin_mae(ours)
    pixels = ours.image_tower.normalise(image)

    def loss() -> Tensor:
        value: Tensor = theirs(pixels, noise=noise).loss
        return value

    return {
        "transformers ViTMAE": of_peer(theirs, loss),
        "diptych": of_ours(ours, lambda: ours.error(ours.reconstruct(image, noise))),
    }


def masking(count: int) -> dict[str, Trainee]:
    """Line up the step that drops three quarters of the patches and the one whose encoder reads them all."""
    some, every = small_mae(0.75), small_mae(0.75)
    torch.manual_seed(1)
    image, noise = torch.rand(count, 3, MAE_SIZE, MAE_SIZE), torch.rand(count, some.image_tower.side**2)

    def loss() -> Tensor:
        made = reconstruct(every.image_tower, every.decoder, image, noise, keep=noise.shape[1])
        hidden = noise.argsort(1).argsort(1) >= some.keep
        return masked_pixels(made.predicted, made.patches, hidden)

    return {
        "every patch read": of_ours(every, loss),
        "75 % dropped": of_ours(some, lambda: some.error(some.reconstruct(image, noise))),
    }


def multiplied(trainee: Trainee) -> float:
    """Count the floating point operations of the products in one step."""
    with FlopCounterMode(display=False) as counter:
        trainee.step(half=False)
    return float(counter.get_total_flops())


def race(name: str, sides: dict[str, Trainee], *, half: bool, equal: bool, count: int, repeats: int) -> list[Row]:
    """Check that all sides have the same loss, and time a step of each; the first is the peer, the last is ours."""
    losses = [side.step(half=half) for side in sides.values()]
    assert not equal or max(losses) - min(losses) <= (0.02 if half else 2e-5) * abs(losses[0]), losses
    timings = interleave({key: partial(side.step, half=half) for key, side in sides.items()}, repeats=repeats)
    ours = list(sides)[-1]
    floor = multiplied(sides[ours]) / gemm_rate(dtype=torch.bfloat16 if half else torch.float32)
    times = {key: timing.median for key, timing in timings.items()} | {"floor: products alone": floor}
    return [
        {
            "step": f"{name} {'bf16' if half else 'fp32'}",
            "way": key,
            "CPU ms": time * 1e3,
            "examples/s": count / time,
            "times the peer": times[next(iter(times))] / time if len(sides) > 1 else None,
            "of floor": time / floor,
            "spread": timings[key].spread if key in timings else 0.0,
        }
        for key, time in times.items()
    ]


def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        add_option(parser)
        parser.add_argument("--batch", type=int, default=16, help="pairs in a step of CLIP")
        parser.add_argument("--pictures", type=int, default=64, help="pictures in a step of the autoencoder")

    given = arguments(__doc__, more=more)
    rows: list[Row] = []
    pair, picture = given.batch, given.pictures
    precisions = (False, True) if half_pays() else (False,)
    sides = clips(pair, given.open_clip)
    for half in precisions:
        rows += race("CLIP", sides, half=half, equal=True, count=pair, repeats=given.repeats)
    sides = maes(picture)
    for half in precisions:
        rows += race("MAE", sides, half=half, equal=True, count=picture, repeats=given.repeats)
    rows += race("masking", masking(picture), half=False, equal=False, count=picture, repeats=given.repeats)
    notes = [
        f"batches of {pair} pairs, {picture} pictures; losses of all sides equal (2e-5 in fp32, 2 % in bf16)",
        "masking: the loss is on the same hidden patches; an encoder that reads every patch sees what it must predict",
        "MKL is slow on this processor, so float32 products go to oneDNN" if slow_products() else "float32 by MKL",
    ]
    notes += [] if half_pays() else [NO_HALF]
    notes += [] if "open_clip" in [row["way"] for row in rows] else [MISSING]
    report("One training step, AdamW included", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
