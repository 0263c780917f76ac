"""The contrastive loss, forward and backward, against the whole matrix of logits: CPU time, peak memory, exactness.

The peer is open_clip's own `loss.py`, loaded alone (beside a CPU torch the package itself cannot be imported): give its
wheel or file by `--open-clip`, or have it installed. Without it the same arithmetic, written out here, stands in.
The floor is what the exact loss must multiply in memory linear in N: 8 N^2 d, or 6 N^2 d where no row is normalised.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import NO_HALF, arguments, gemm_rate, half_pays, interleave, peak_memory, report
from diptych.objectives.contrastive import contrastive
from diptych.objectives.sigmoid import sigmoid

WIDTH = 512
SCALE, BIAS = 1 / 0.07, -10.0
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Race:
    """Two ways to one loss: its name, what the exact one must multiply per N^2 d, the peer and ours."""

    name: str
    multiplications: int
    half: bool
    peer: Loss
    ours: Loss


def dense_softmax(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Do what open_clip's ClipLoss does in one process: two matrices of logits, two cross entropies."""
    label = torch.arange(len(image))
    by_image, by_text = scale * image @ text.T, scale * text @ image.T
    return (F.cross_entropy(by_image, label) + F.cross_entropy(by_text, label)) / 2


def dense_sigmoid(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Do what open_clip's SigLipLoss does in one process."""
    logits = scale * image @ text.T + BIAS
    return -F.logsigmoid((2 * torch.eye(len(image)) - 1) * logits).sum() / len(image)


def races(place: str | None) -> list[Race]:
    """Line up, with the peer's own losses where they are at hand."""
    peer = open_clip(place)
    softmax: Loss = dense_softmax if peer is None else peer.ClipLoss()
    if peer is None:
        each: Loss = dense_sigmoid
    else:
        each = partial(_with_bias, peer.SigLipLoss())
    return [
        Race("softmax fp32", 8, half=False, peer=softmax, ours=contrastive),
        Race("softmax bf16", 8, half=True, peer=partial(_autocast, softmax), ours=partial(contrastive, tiles="bf16")),
        Race("sigmoid fp32", 6, half=False, peer=each, ours=_sigmoid),
    ]


def open_clip(place: str | None) -> ModuleType | None:
    """Load open_clip's `loss.py` from a wheel, a file or the installed package; None where there is none."""
    spec = importlib.util.find_spec("open_clip") if place is None else None
    file = (
        Path(place) if place is not None else Path(spec.origin).with_name("loss.py") if spec and spec.origin else None
    )
    if file is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as wheel:
                file = Path(wheel.extract("open_clip/loss.py", folder))
        found = importlib.util.spec_from_file_location("open_clip_loss", file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    return module


def _with_bias(loss: Callable[..., Any], image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    value: Tensor = loss(image, text, scale, torch.tensor(BIAS))
    return value


def _autocast(loss: Loss, image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return loss(image, text, scale)


def _sigmoid(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    return sigmoid(image, text, scale, BIAS)


def pairs(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw N pairs of unit vectors that belong together, and the scale; all ask for gradients."""
    torch.manual_seed(0)
    image = F.normalize(torch.randn(size, WIDTH), dim=1)
    text = F.normalize(image + 3 * F.normalize(torch.randn(size, WIDTH), dim=1), dim=1)
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(SCALE, requires_grad=True)


def step(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float, tuple[Tensor, ...]]:
    """Go forward and backward; return the loss and the gradients of both sides and of the scale."""
    value = loss(*inputs)
    grads = torch.autograd.grad(value, inputs)  # the scale's too, which training needs
    return float(value.detach()), grads


def extra_memory(size: int, number: int, *, ours: bool, place: str | None) -> float:
    """Return by how many MiB one step of a race lifts the peak of a fresh process that holds its inputs."""
    setup = f"""
from benchmarks.contrastive import pairs, races, step
race = races({place!r})[{number}]
loss, inputs = race.{"ours" if ours else "peer"}, pairs({size})
step(loss, pairs(64))
"""
    return peak_memory("step(loss, inputs)", setup=setup)


def gradient_error(loss: Loss, size: int, exact: Tensor) -> float:
    """Return the distance of the gradient of the vectors to the exact one, as a share of its length."""
    found = torch.cat(step(loss, pairs(size))[1][:2])
    return float((found - exact).norm() / exact.norm())


def exact_gradient(size: int, *, each: bool) -> Tensor:
    """Return the gradients of both sides, made from the whole matrix in float64."""
    image, text, scale = (tensor.detach().double().requires_grad_() for tensor in pairs(size))
    return torch.cat(step(dense_sigmoid if each else dense_softmax, (image, text, scale))[1][:2])


def run(race: Race, number: int, size: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Check a race at one size, time it and measure its memory: a row for each of the two."""
    inputs = pairs(size)
    ways = {"whole matrix": race.peer, "diptych": race.ours}
    values = [step(loss, inputs)[0] for loss in ways.values()]
    assert abs(values[0] - values[1]) <= (0.02 if race.half else 1e-5) * abs(values[0]), values
    errors: dict[str, float] = {}
    if size <= 4096:
        exact = exact_gradient(size, each=race.multiplications == 6)
        errors = {name: gradient_error(loss, size, exact) for name, loss in ways.items()}
        assert race.half or errors["diptych"] < 1e-5, errors
        del exact
    timings = interleave({name: partial(step, loss, inputs) for name, loss in ways.items()}, repeats=given.repeats)
    dtype = torch.bfloat16 if race.half else torch.float32
    floor = race.multiplications * size**2 * WIDTH / gemm_rate(dtype=dtype)
    rows = []
    for name, timing in timings.items():
        memory = extra_memory(size, number, ours=name == "diptych", place=given.open_clip)
        rows.append(
            {
                "loss": race.name,
                "N": size,
                "way": name,
                "CPU ms": timing.median * 1e3,
                "spread": timing.spread,
                "times faster": timings["whole matrix"].median / timing.median,
                "of floor": timing.median / floor,
                "gradient error": errors.get(name),
                "MiB": memory,
            }
        )
    return rows


def large(sizes: tuple[int, ...]) -> list[str]:
    """Measure the memory of ours alone, where the whole matrix would not fit."""
    found = {size: extra_memory(size, 0, ours=True, place=None) for size in sizes}
    return [f"memory of softmax fp32 alone, N = {size:,}: {memory:,.0f} MiB" for size, memory in found.items()]


def main() -> None:
    """Run every race at every size and print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--open-clip", help="wheel or loss.py of open_clip")
        parser.add_argument(
            "--full", action="store_true", help="also N = 16,384, and memory up to 65,536: half an hour"
        )

    given = arguments(__doc__, more=more)
    sizes = (1024, 4096, 16384) if given.full else (1024, 4096)
    found = open_clip(given.open_clip)
    rows = [
        row
        for number, race in enumerate(races(given.open_clip))
        if half_pays() or not race.half
        for size in sizes
        for row in run(race, number, size, given)
    ]
    notes = [
        "the whole matrix: "
        + ("its arithmetic, written out (open_clip is not at hand)" if found is None else "open_clip's losses"),
        "gradient error: against the whole matrix in float64, relative; MiB: peak above what holds the inputs",
        *(() if half_pays() else (NO_HALF,)),
        *(large((32768, 65536)) if given.full else ()),
    ]
    report(f"Contrastive loss, forward and backward, {WIDTH} numbers a vector", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
