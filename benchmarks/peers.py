"""Finds open_clip: its losses and towers beside a CPU torch, where the package itself cannot be imported.

It is looked for in this order: `--open-clip`, which names the wheel or a folder it was unzipped to (`pip download
--no-deps open_clip_torch`); the variable OPEN_CLIP, which does the same; the installed package. Only its modules of
losses and towers are loaded, and torchvision, which they merely mention, is a stand-in while they load.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from diptych.encoders.image import ViT
from diptych.encoders.text import TextTransformer
from diptych.models.align.clip import CLIP
from diptych.models.align.mae import MAE

MISSING = "open_clip is not at hand (--open-clip WHEEL): only our own rows"
_OPEN_CLIP = {
    "attn.out_proj": "attention.out",
    "ln_1": "attention_norm",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
_TRANSFORMERS = {
    "layernorm_before": "attention_norm",
    "layernorm_after": "mlp_norm",
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.o_proj": "attention.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
_STAND_IN = ("torchvision", "torchvision.ops", "torchvision.ops.misc")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--open-clip`."""
    parser.add_argument("--open-clip", default=os.environ.get("OPEN_CLIP"), help="wheel or folder of open_clip")


@cache
def open_clip(place: str | None, module: str) -> ModuleType | None:
    """Load one module of open_clip, such as "loss" or "model"; None where there is none."""
    folder = _folder(place)
    if folder is None:
        return None
    package = ModuleType("open_clip")  # its own __init__ would import the rest
    package.__path__ = [str(folder)]
    package.__spec__ = importlib.machinery.ModuleSpec("open_clip", None, origin=str(folder / "__init__.py"))
    sys.modules["open_clip"] = package
    with _without_torchvision():
        return importlib.import_module(f"open_clip.{module}")


def _folder(place: str | None) -> Path | None:
    if place is None:
        spec = importlib.util.find_spec("open_clip")
        return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    path = Path(place)
    if path.suffix == ".whl":
        unpacked = Path(tempfile.mkdtemp())
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith("open_clip/")])
        path = unpacked
    return path / "open_clip" if (path / "open_clip").is_dir() else path


@contextmanager
def _without_torchvision() -> Iterator[None]:
    import transformers  # noqa: F401 - before the stand-in is there, which it would take for the real one

    for name in _STAND_IN:
        module: Any = ModuleType(name)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
        module.FrozenBatchNorm2d = nn.Identity
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in _STAND_IN:
            del sys.modules[name]


def twin(model: CLIP, module: ModuleType) -> nn.Module:
    """Build open_clip's CLIP with the shapes and weights of ours."""
    image, text = model.image_tower, model.text_tower
    assert isinstance(image, ViT)
    assert isinstance(text, TextTransformer)
    vision = module.CLIPVisionCfg(
        layers=len(image.transformer.blocks),
        width=image.dim,
        head_width=image.dim // image.heads,
        patch_size=image.patch,
        image_size=image.image_size,
    )
    words = module.CLIPTextCfg(
        context_length=text.context,
        vocab_size=text.embedding.num_embeddings,
        width=text.dim,
        heads=text.heads,
        layers=len(text.transformer.blocks),
    )
    joint = model.read_image.head.straight
    assert joint is not None
    peer: nn.Module = module.CLIP(joint.out_features, vision, words, quick_gelu=False)
    left = peer.load_state_dict(_renamed(model), strict=False)
    assert not left.unexpected_keys, left
    assert set(left.missing_keys) <= {"logit_bias"}, left
    return peer


def _renamed(model: CLIP) -> dict[str, Tensor]:
    """Name our weights as open_clip does."""
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    found: dict[str, Tensor] = {"logit_scale": own["log_scale"]}
    for tower, before in (("image_tower", "visual."), ("text_tower", "")):
        blocks = 1 + max(int(name.split(".")[3]) for name in own if name.startswith(f"{tower}.transformer.blocks."))
        for k in range(blocks):
            _rename_block(own, found, f"{tower}.transformer.blocks.{k}.", f"{before}transformer.resblocks.{k}.")
    image, text = "image_tower.", "text_tower."
    found["visual.conv1.weight"] = own[image + "patches.projection.weight"]
    found["visual.class_embedding"] = own[image + "class_token"]
    found["visual.positional_embedding"] = own[image + "positions"]
    found["token_embedding.weight"] = own[text + "embedding.weight"]
    found["positional_embedding"] = own[text + "positions"]
    for theirs, ours in (
        ("visual.ln_pre", image + "norm_before"),
        ("visual.ln_post", image + "norm_after"),
        ("ln_final", text + "norm"),
    ):
        found[f"{theirs}.weight"], found[f"{theirs}.bias"] = own[f"{ours}.weight"], own[f"{ours}.bias"]
    for theirs, ours in (("visual.proj", "read_image"), ("text_projection", "read_text")):
        (weight,) = (value for name, value in own.items() if name.startswith(f"{ours}.") and value.dim() == 2)
        found[theirs] = weight.T.contiguous()
    return found


def _rename_block(own: dict[str, Tensor], found: dict[str, Tensor], ours: str, theirs: str) -> None:
    for kind in ("weight", "bias"):
        parts = [own[f"{ours}attention.{part}.{kind}"] for part in ("query", "key", "value")]
        found[f"{theirs}attn.in_proj_{kind}"] = torch.cat(parts)
        for new, old in _OPEN_CLIP.items():
            found[f"{theirs}{new}.{kind}"] = own[f"{ours}{old}.{kind}"]


def twin_mae(model: MAE) -> nn.Module:
    """Build transformers' ViTMAE with the shapes and weights of ours."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    tower, decoder = model.image_tower, model.decoder
    width = decoder.enter.out_features
    settings = ViTMAEConfig(
        hidden_size=tower.dim,
        num_hidden_layers=len(tower.transformer.blocks),
        num_attention_heads=tower.heads,
        intermediate_size=4 * tower.dim,
        image_size=tower.image_size,
        patch_size=tower.patch,
        decoder_hidden_size=width,
        decoder_num_attention_heads=decoder.transformer.blocks[0].attention.heads,
        decoder_num_hidden_layers=len(decoder.transformer.blocks),
        decoder_intermediate_size=4 * width,
        mask_ratio=1 - model.keep / tower.side**2,
        norm_pix_loss=model.normalise_patches,
        layer_norm_eps=1e-5,
    )
    peer: nn.Module = ViTMAEForPreTraining(settings)
    found = dict(_mae_names(model))
    own = peer.state_dict()
    peer.load_state_dict({name: found[name].detach().view_as(value) for name, value in own.items()})
    return peer.train()


def _mae_names(model: MAE) -> Iterator[tuple[str, Tensor]]:
    """Name our weights as transformers 5 does."""
    tower, decoder = model.image_tower, model.decoder
    yield "vit.embeddings.cls_token", tower.class_token
    yield "decoder.mask_token", decoder.mask_token
    for name, part in (("vit.embeddings.position_embeddings", tower), ("decoder.decoder_pos_embed", decoder)):
        yield name, torch.cat([torch.zeros_like(part.positions[:1]), part.positions])  # theirs go by columns
    parts: dict[str, Any] = {
        "vit.embeddings.patch_embeddings.projection": tower.patches.projection,
        "vit.layernorm": tower.norm_after,
        "decoder.decoder_embed": decoder.enter,
        "decoder.decoder_norm": decoder.norm,
        "decoder.decoder_pred": decoder.pixels,
    }
    for place, stack in (("vit.layers", tower.transformer), ("decoder.decoder_layers", decoder.transformer)):
        for k, block in enumerate(stack.blocks):
            parts |= {f"{place}.{k}.{theirs}": block.get_submodule(ours) for theirs, ours in _TRANSFORMERS.items()}
    for name, layer in parts.items():
        yield f"{name}.weight", layer.weight
        yield f"{name}.bias", layer.bias
