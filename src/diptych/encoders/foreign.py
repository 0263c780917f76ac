"""Pretrained towers of timm and open_clip, which need torchvision: imported only when such a tower is named."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.facts import TOWER_FILE, ImageFacts, TextFacts
from diptych.encoders.offers import WordTable
from diptych.encoders.readers import pool_text


def need(module: str, package: str) -> Any:
    """Import a package that is not part of diptych's own installation.

    Raises:
        UserError: when it is not installed, or does not fit the installed torch.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision beside another build of torch fails with whatever it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"this tower needs {package} with a torchvision that fits your torch: "
            f"pip install {package} torchvision ({reason})"
        ) from None


class TimmImage(ImageEncoder):
    """An image tower of timm: the grid before its head, and the features that its head would classify.

    Args:
        name: model name, with its pretrained tag if wanted, as "vit_small_patch16_dinov3.lvd1689m".
        model: made without a classifier.
        facts: how it wants its pictures.
    """

    adopted = True

    def __init__(self, name: str, model: Any, facts: ImageFacts) -> None:
        super().__init__(1, image_size=facts.image_size, mean=facts.mean, std=facts.std, crop=facts.crop)
        self.name, self.model, self.facts = name, model, facts
        self.dim = _width(self)

    def assets(self) -> dict[str, bytes]:
        """Return the name and our facts; the architecture comes from timm itself."""
        return _asset("timm", self.name, asdict(self.facts))

    def recipe(self) -> str:
        """Return the name and pixel statistics."""
        return f"timm {self.name} {self.facts}"

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels."""
        features = self.model.forward_features(pixels)
        summary = self.model.forward_head(features, pre_logits=True)
        return _states(_grid(self.model, features), summary, self.facts.pool)


class OpenClipImage(ImageEncoder):
    """The vision transformer of an open_clip model, before its projection.

    Args:
        name: "ViT-B-32/laion2b_s34b_b79k", or "hf-hub:owner/model".
        visual: the image side of the model.
        facts: how it wants its pictures.
    """

    adopted = True

    def __init__(self, name: str, visual: Any, facts: ImageFacts) -> None:
        super().__init__(1, image_size=facts.image_size, mean=facts.mean, std=facts.std, crop=facts.crop)
        self.name, self.model, self.facts = name, visual, facts
        self.dim = _width(self)

    def assets(self) -> dict[str, bytes]:
        """Return the name and our facts; the architecture comes from open_clip itself."""
        return _asset("open_clip", self.name, asdict(self.facts))

    def recipe(self) -> str:
        """Return the name and pixel statistics."""
        return f"open_clip {self.name} {self.facts}"

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels."""
        summary, tokens = self.model(pixels)
        return _states(tokens, summary, self.facts.pool)


class OpenClipText(TextEncoder, WordTable):
    """The causal text transformer of an open_clip model, read at the last real token, before its projection.

    Args:
        name: as for the image side.
        text: the module with the token embedding, the transformer and the last norm.
        facts: how long a text may be, and its pooling.
    """

    adopted = True

    def __init__(self, name: str, text: Any, facts: TextFacts) -> None:
        super().__init__(int(text.ln_final.weight.shape[0]), context=facts.context)
        self.name, self.facts = name, facts
        self.embedding, self.transformer, self.norm = text.token_embedding, text.transformer, text.ln_final
        self.positions = text.positional_embedding
        self.pool = "last" if facts.pool == "auto" else facts.pool

    def assets(self) -> dict[str, bytes]:
        """Return the name and our facts; the architecture comes from open_clip itself."""
        return _asset("open_clip", self.name, asdict(self.facts))

    def recipe(self) -> str:
        """Return the name and pooling."""
        return f"open_clip {self.name} {self.facts}"

    def word_table(self) -> nn.Embedding:
        """Return the table of the word vectors."""
        table: nn.Embedding = self.embedding
        return table

    def encode(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> States:
        """Encode token ids."""
        length = tokens.shape[1]
        x = self.embedding(tokens) + self.positions[:length]
        ahead = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        x = self.norm(self.transformer(x, attn_mask=ahead))
        return States(x, mask, pool_text(x, mask, self.pool))


def timm_image(name: str, *, pool: str, image_size: int | None, weights: bool) -> TimmImage:
    """Build an image tower of timm.

    Raises:
        UserError: when timm is not there, or has no such model.
    """
    timm = need("timm", "timm")
    try:
        model = timm.create_model(name, pretrained=weights, num_classes=0)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"timm gives no model {name!r}: {error}; see timm.list_models()") from None
    said = timm.data.resolve_model_data_config(model)
    size = int(said["input_size"][-1]) if image_size is None else image_size
    return TimmImage(name, model, ImageFacts(size, "center", tuple(said["mean"]), tuple(said["std"]), pool))


def open_clip_model(name: str, *, weights: bool) -> Any:
    """Build a whole open_clip model, both sides.

    Raises:
        UserError: when open_clip is not there, or has no such model.
    """
    open_clip = need("open_clip", "open_clip_torch")
    model, _, tag = (name, "", "") if name.startswith("hf-hub:") else name.partition("/")
    try:
        return open_clip.create_model(model, pretrained=(tag or None) if weights else None, load_weights=weights)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"open_clip gives no model {name!r}: {error}; see open_clip.list_pretrained()") from None


def open_clip_image(name: str, *, pool: str, weights: bool) -> OpenClipImage:
    """Build the image side of an open_clip model.

    Raises:
        UserError: as `open_clip_model`, and for an image side that is no vision transformer.
    """
    visual = open_clip_model(name, weights=weights).visual
    if getattr(visual, "output_tokens", None) is None:
        raise UserError(f"only the vision transformers of open_clip can be towers, and {name!r} has none: try timm")
    visual.output_tokens, visual.proj = True, None
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    facts = ImageFacts(int(size), "center", tuple(visual.image_mean), tuple(visual.image_std), pool)
    return OpenClipImage(name, visual, facts)


def open_clip_text(name: str, *, pool: str, weights: bool) -> OpenClipText:
    """Build the text side of an open_clip model.

    Raises:
        UserError: as `open_clip_model`, and for a text side that is a model of transformers.
    """
    model = open_clip_model(name, weights=weights)
    text = getattr(model, "text", model)
    if getattr(text, "token_embedding", None) is None:
        raise UserError(f"the text side of {name!r} is a transformers model: give its own name as text_encoder")
    return OpenClipText(name, text, TextFacts(int(text.positional_embedding.shape[0]), pool))


def _grid(model: Any, features: Tensor) -> Float[Tensor, "b n d"]:
    """Flatten timm's features row by row, without the tokens before the grid."""
    if features.ndim == 3:
        return features[:, getattr(model, "num_prefix_tokens", 0) :]
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2)


def _states(tokens: Float[Tensor, "b n d"], summary: Float[Tensor, "b e"], pool: str) -> States:
    """Join both; the mean of the grid where it is asked for, or where the summary is of another width."""
    if pool == "mean" or summary.shape[1] != tokens.shape[2]:
        summary = tokens.mean(1)
    return States(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), summary)


@torch.no_grad()
def _width(tower: ImageEncoder) -> int:
    """Find the width of a tower by running it once."""
    pixels = torch.zeros(1, len(tower.mean), tower.image_size, tower.image_size)
    return int(tower.eval().encode(pixels).summary.shape[1])


def _asset(kind: str, name: str, facts: dict[str, Any]) -> dict[str, bytes]:
    return {TOWER_FILE: (json.dumps({"kind": kind, "name": name, **facts}, indent=1) + "\n").encode()}
