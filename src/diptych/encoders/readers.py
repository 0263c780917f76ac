"""How each kind of transformers model is read: which class holds the tower, what its tokens and its summary are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.patches import patchify
from diptych.nn.pool import last_real, masked_mean


def _plain(model: Any, pixels: Tensor) -> Any:
    return model(pixel_values=pixels)


def _unmasked(model: Any, pixels: Tensor) -> Any:
    """Run a masked autoencoder's encoder on all patches, in their order."""
    model.config.mask_ratio = 0.0
    patches = model.get_parameter("embeddings.position_embeddings").shape[1] - 1
    order = torch.arange(patches, device=pixels.device, dtype=torch.float32).expand(pixels.shape[0], -1)
    return model(pixel_values=pixels, noise=order)


def _cut(model: Any, pixels: Tensor) -> Any:
    """Run a tower that takes pictures already cut into patches."""
    patch = int(model.config.patch_size)
    patches = patchify(pixels, patch)
    grid = torch.tensor([[pixels.shape[2] // patch, pixels.shape[3] // patch]], device=pixels.device)
    mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device)
    return model(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=grid.expand(pixels.shape[0], -1))


@dataclass(frozen=True, slots=True)
class ImageReader:
    """How to read one kind of image model.

    Args:
        tower: transformers class of the tower; the usual class of the checkpoint when None.
        part: where the tower is in a checkpoint of both sides, for a class that cannot find itself there.
        pool: "class" (the first token), "mean" (of the grid) or "pooler" (the model's own pooled output).
        norm: name of a last norm that the model gives to its class token only; here the grid gets it too.
        run: how the model is called.
    """

    tower: str | None = None
    pool: str = "auto"
    part: str | None = None
    norm: str | None = None
    run: Callable[[Any, Tensor], Any] = _plain


@dataclass(frozen=True, slots=True)
class TextReader:
    """How to read one kind of text model.

    Args:
        tower: transformers class of the tower; the usual class of the checkpoint when None.
        part: where the tower is in a checkpoint of both sides, for a class that cannot find itself there.
        pool: "mean", "class" (the first token), "last" (the last real token), "max", or "full" (the model's own
            summary of a text padded to its full length, as SigLIP learnt it).
        offset: positions that its config counts but a text cannot use.
    """

    tower: str | None = None
    pool: str = "mean"
    part: str | None = None
    offset: int = 0


_CLIP = ImageReader("CLIPVisionModel", "pooler", norm="post_layernorm")
_SIGLIP = ImageReader("SiglipVisionModel", "pooler")
_SIGLIP2 = ImageReader("Siglip2VisionModel", "pooler", run=_cut)

IMAGE_READERS: dict[str, ImageReader] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "chinese_clip": ImageReader("ChineseCLIPVisionModel", "pooler", "vision_model", norm="post_layernorm"),
    "chinese_clip_vision_model": ImageReader("ChineseCLIPVisionModel", "pooler", norm="post_layernorm"),
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    "align": ImageReader("AlignVisionModel", "pooler", "vision_model"),
    "align_vision_model": ImageReader("AlignVisionModel", "pooler"),
    "blip": ImageReader("BlipVisionModel", "class", "vision_model"),
    "blip_vision_model": ImageReader("BlipVisionModel", "class"),
    "vit_mae": ImageReader(None, "mean", run=_unmasked),
    "beit": ImageReader(None, "mean"),
    "data2vec-vision": ImageReader(None, "mean"),
}

_MODERN = ("gpt2", "gpt_neo", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi")
_ROBERTA = ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "longformer")

TEXT_READERS: dict[str, TextReader] = {
    "clip": TextReader("CLIPTextModel", "last"),
    "clip_text_model": TextReader("CLIPTextModel", "last"),
    "chinese_clip": TextReader("ChineseCLIPTextModel", "class", "text_model"),
    "chinese_clip_text_model": TextReader("ChineseCLIPTextModel", "class"),
    "siglip": TextReader("SiglipTextModel", "full"),
    "siglip_text_model": TextReader("SiglipTextModel", "full"),
    "siglip2": TextReader("Siglip2TextModel", "full"),
    "siglip2_text_model": TextReader("Siglip2TextModel", "full"),
    "align": TextReader("AlignTextModel", "class", "text_model"),
    "align_text_model": TextReader("AlignTextModel", "class"),
    "t5": TextReader("T5EncoderModel"),
    "mt5": TextReader("MT5EncoderModel"),
    **{kind: TextReader(None, "last") for kind in _MODERN},
    **{kind: TextReader(None, "mean", offset=2) for kind in _ROBERTA},
}


def read_image(
    out: Any, *, pool: str, places: int, norm: nn.Module | None = None
) -> tuple[Float[Tensor, "b n w"], Float[Tensor, "b d"]]:
    """Take the grid, row by row, and the summary from what a model returned.

    Args:
        out: with `last_hidden_state` and perhaps `pooler_output`.
        pool: "auto", "class", "mean" or "pooler".
        places: how many patches were cut; what comes before them is a class token, distillation or registers. A tower
            that joins patches on its way has fewer places: those of the largest square.
        norm: a last norm that the tokens still need.

    Raises:
        UserError: when the summary asked for is not there.
    """
    hidden = out.last_hidden_state
    if hidden.ndim == 4:
        tokens, first = hidden.flatten(2).transpose(1, 2), 0
    else:
        count = hidden.shape[1]
        first = count - (places if 0 < places <= count else isqrt(count) ** 2)
        tokens = hidden if norm is None else norm(hidden)
    pooled = out.get("pooler_output")
    if pool == "auto":
        pool = "class" if first > 0 else "pooler" if pooled is not None else "mean"
    grid = tokens[:, first:]
    if pool == "mean":
        return grid, grid.mean(1)
    if pool == "class" and first > 0:
        return grid, tokens[:, 0]
    if pool == "pooler" and pooled is not None and pooled.flatten(1).shape[1] == grid.shape[2]:
        return grid, pooled.flatten(1)
    raise UserError(f"this image tower gives no summary of the kind {pool!r}: set image_pool to auto or mean")


def read_grid(out: Any, depth: int, *, places: int) -> Float[Tensor, "b n w"]:
    """Take the grid, row by row, from a hidden state of another depth.

    Raises:
        UserError: when the tower has no such hidden state.
    """
    hidden = _hidden(out, depth)
    if hidden.ndim == 4:
        return hidden.flatten(2).transpose(1, 2)
    count = hidden.shape[1]
    return hidden[:, count - (places if 0 < places <= count else isqrt(count) ** 2) :]


def read_depths(out: Any, depths: Sequence[int], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """Put the means over the real words of several hidden states side by side; 0 is the words' own embedding.

    Raises:
        UserError: when the tower has no such hidden state.
    """
    return torch.cat([masked_mean(_hidden(out, depth), mask) for depth in depths], dim=1)


def _hidden(out: Any, depth: int) -> Tensor:
    hidden = out.hidden_states
    if hidden is None or not -len(hidden) <= depth < len(hidden):
        raise UserError(f"this tower has no hidden state {depth}: it has {len(hidden or ())}, counted from 0")
    state: Tensor = hidden[depth]
    return state


def pool_text(tokens: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], pool: str) -> Float[Tensor, "b d"]:
    """Summarise the real tokens by "mean", "class", "last" or "max".

    Raises:
        UserError: for another pool.
    """
    if pool == "mean":
        return masked_mean(tokens, mask)
    if pool == "class":
        return tokens[:, 0]
    if pool == "last":
        return last_real(tokens, mask)
    if pool == "max":
        highest = tokens.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
        return highest.masked_fill(~mask.any(1, keepdim=True), 0.0)
    raise UserError(f"unknown text pool {pool!r} for a pretrained tower (allowed: auto, class, last, max, mean)")


def pad_full(tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, context: int, pad_id: int) -> Int[Tensor, "b c"]:
    """Pad texts to the full length, whatever stood in their padding."""
    full = tokens.new_full((tokens.shape[0], context), pad_id)
    full[:, : tokens.shape[1]] = tokens.masked_fill(~mask, pad_id)
    return full
