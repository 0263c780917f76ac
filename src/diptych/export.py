"""A run as two ONNX graphs, with all that one needs to use them where there is no diptych and no torch."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.encoders.offers import Towered
from diptych.train.experiment import OpenRun, load_run, versions

LARGEST = 1e-4
"""Difference of any number of a unit vector between torch and onnxruntime beyond which an export is refused."""

OPSET = 18
IMAGE, TEXT, FACTS = "image.onnx", "text.onnx", "encoders.json"
_LARGE = 1_500_000_000  # bytes of weights: a file of ONNX holds two billion
_TEXTS = (
    ["a red circle", "two dogs run through the snow, and a man looks on"],
    ["a"],
    ["one small blue square to the left of a star", "x", "a very long text " * 40],
)
_NEEDS = ("onnx", "onnxscript", "onnxruntime")
_CROPS = {
    "squash": "resize to size x size, proportions lost",
    "center": "resize so that the shorter side is size, the other int(size * longer / shorter); cut the middle out",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Args:
        folder: with the graphs, `tokenizer.json` and `encoders.json`.
        facts: what stands in `encoders.json`.
        image: largest difference to torch of a number in a picture's vector.
        text: the same of a text's.
    """

    folder: Path
    facts: Mapping[str, Any]
    image: float
    text: float


class ImageGraph(nn.Module):
    """From pixels as they come out of Pillow to unit vectors."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: UInt8[Tensor, "b s s 3"]) -> Float[Tensor, "b d"]:
        """Scale, normalise and encode."""
        model = self.model
        assert isinstance(model, PairEncoder)
        pixels = image.permute(0, 3, 1, 2).float() / 255
        if not isinstance(model, Towered):
            return model.encode_image(Batch(image=pixels))
        tower = model.image_tower
        pixels = (pixels - tower.shift) / tower.scale
        mirrored = tower.encode(pixels.flip(-1)) if model.reads().mirrored else None
        return model.encode_image(Batch(image_states=tower.encode(pixels), mirrored_states=mirrored))


class TextGraph(nn.Module):
    """From token ids to unit vectors."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Encode."""
        model = self.model
        assert isinstance(model, PairEncoder)
        if not isinstance(model, Towered):
            return model.encode_text(Batch(tokens=tokens, token_mask=mask))
        return model.encode_text(Batch(text_states=model.text_tower.encode(tokens, mask)))


def export_onnx(run: Path, out: Path) -> Exported:
    """Write the two encoders of a run as ONNX, and prove that onnxruntime gives the same vectors.

    Args:
        run: a run folder of a system with pictures and texts in one space.
        out: folder for `image.onnx` (pixels to unit vectors), `text.onnx` (token ids to unit vectors),
            `tokenizer.json` (which cuts and pads by itself) and `encoders.json` (how to use them).

    Raises:
        UserError: when a package is missing, the system has no such vectors, its layers have no form in ONNX, or what
            onnxruntime computes is further than 1e-4 from torch.
    """
    for name in _NEEDS:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"an export to ONNX needs the package {name}: pip install 'diptych[onnx]'")
    opened = load_run(run)
    model = opened.model.eval().requires_grad_(False)
    if not isinstance(model, PairEncoder):
        raise UserError(
            f"{opened.system} has no vectors of pictures and texts in one space, which are what is exported; "
            "clip, siglip and mapper have"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give --onnx another folder") from None
    pictures = [_pictures(count, opened.spec.image_size) for count in (2, 1, 3)]
    texts = [opened.tokenizer(batch, opened.spec.context) for batch in _TEXTS]
    with torch.no_grad():
        seen = [model.encode_image(Batch(image=picture.permute(0, 3, 1, 2))) for (picture,) in pictures]
        read = [model.encode_text(Batch(tokens=tokens, token_mask=mask)) for tokens, mask in texts]
    image_side, text_side = sides(model)
    image = _write(image_side, out / IMAGE, pictures, seen)
    text = _write(text_side, out / TEXT, texts, read)
    _save_tokenizer(opened, out / "tokenizer.json")
    facts = _facts(opened, model, dim=seen[0].shape[1], parity={"image": image, "text": text})
    (out / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(out, facts, image, text)


@dataclass(frozen=True, slots=True)
class _Side:
    """One encoder.

    Args:
        name: "image" or "text".
        graph: what is exported.
        dynamic: the axes of each input that may be of any length.
    """

    name: str
    graph: nn.Module
    dynamic: Mapping[str, Mapping[int, str]]


def sides(model: Model) -> tuple[_Side, _Side]:
    """Return what is exported of a model: its image encoder and its text encoder."""
    words = {name: {0: "batch", 1: "length"} for name in ("tokens", "mask")}
    return _Side("image", ImageGraph(model), {"image": {0: "batch"}}), _Side("text", TextGraph(model), words)


def _write(side: _Side, path: Path, examples: Sequence[tuple[Tensor, ...]], wanted: Sequence[Tensor]) -> float:
    """Export one encoder, run it on batches of several sizes, and return the largest difference."""
    with _quietly(), torch.no_grad():
        try:
            torch.onnx.export(
                side.graph.eval(),
                examples[0],
                str(path),
                input_names=list(side.dynamic),
                output_names=["vectors"],
                dynamic_shapes=tuple(dict.fromkeys(of, torch.export.Dim.DYNAMIC) for of in side.dynamic.values()),
                opset_version=OPSET,
                dynamo=True,
                external_data=sum(weight.nbytes for weight in side.graph.parameters()) > _LARGE,
                verbose=False,
            )
        except Exception as error:  # whatever the exporter raises: to the user it is one and the same
            path.unlink(missing_ok=True)
            raise UserError(f"the {side.name} encoder has no form in ONNX: {_reason(error)}") from None
    try:
        difference = _difference(path, side, examples, wanted)
    except Exception as error:  # onnxruntime's own errors derive from Exception alone
        path.unlink(missing_ok=True)
        raise UserError(f"onnxruntime cannot run the {side.name} encoder: {_reason(error)}") from None
    if not difference <= LARGEST:
        path.unlink(missing_ok=True)
        raise UserError(
            f"the exported {side.name} encoder differs from torch by {difference:.2g}, allowed is {LARGEST:.0e}: "
            "nothing is kept of it; please report the system and its settings"
        )
    return difference


def _difference(path: Path, side: _Side, examples: Sequence[tuple[Tensor, ...]], wanted: Sequence[Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = []
    for given, vectors in zip(examples, wanted, strict=True):
        feed = {name: value.numpy() for name, value in zip(side.dynamic, given, strict=True)}
        (made,) = session.run(None, feed)
        found.append(float(np.abs(made - vectors.numpy()).max()))
    return max(found)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporter's notes about its own inside from the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _reason(error: BaseException) -> str:
    """Return the line that tells most: of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _pictures(count: int, side: int) -> tuple[UInt8[Tensor, "b s s 3"]]:
    """Make pictures as Pillow gives them, the same each time."""
    generator = torch.Generator().manual_seed(count)
    return (torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8),)


def _save_tokenizer(opened: OpenRun, path: Path) -> None:
    """Write the tokenizer so that it cuts and pads as the model was trained to."""
    tokenizer, context = opened.tokenizer, opened.spec.context
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_truncation(context)
    backend.enable_padding(pad_id=tokenizer.pad_id, pad_token=backend.id_to_token(tokenizer.pad_id))
    path.write_text(backend.to_str(pretty=True), encoding="utf-8")


def _facts(opened: OpenRun, model: PairEncoder, *, dim: int, parity: Mapping[str, float]) -> dict[str, Any]:
    """Say all that one needs to know."""
    spec = opened.spec
    size = spec.image_size
    picture = {"name": "image", "type": "uint8", "shape": ["batch", size, size, 3], "range": [0, 255]}
    shape = ["batch", "length"]
    return {
        "system": opened.system,
        "model": opened.identity,
        "vectors": {"dim": dim, "length": 1, "compare": "dot product", "scale": float(model.scale())},
        "image": {
            "file": IMAGE,
            "input": picture,
            "output": "vectors",
            "size": size,
            "crop": opened.crop,
            "how": f"RGB, upright as EXIF says, transparency on white; {_CROPS[opened.crop]}; bicubic with antialias",
            "normalised": "by the graph",
        },
        "text": {
            "file": TEXT,
            "inputs": [
                {"name": "tokens", "type": "int64", "shape": shape},
                {"name": "mask", "type": "bool", "shape": shape, "true": "real tokens, false: padding at the right"},
            ],
            "output": "vectors",
            "tokenizer": "tokenizer.json",
            "context": spec.context,
            "pad_id": opened.tokenizer.pad_id,
        },
        "opset": OPSET,
        "difference_to_torch": dict(parity),
        "versions": dict(versions()),
    }
