"""Tiny pretrained models, made at random and saved as transformers saves real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

PIXELS = {
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
}
DEPTH = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20, "hidden_size": 16}
PATCHES = {**DEPTH, "image_size": 16, "patch_size": 4}
WORDS = {**DEPTH, "vocab_size": 40, "max_position_embeddings": 12, "pad_token_id": 0}
MASKED = {f"decoder_{name}": value for name, value in DEPTH.items()}
TEXT = {**WORDS, "bos_token_id": 1, "eos_token_id": 2}
BOTH = {"text_config": TEXT, "vision_config": PATCHES, "projection_dim": 8}

SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "window_size": 2,
}
IMAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIP", BOTH),
    "chinese_clip": ("ChineseCLIP", {**BOTH, "text_config": WORDS}),
    "siglip": ("Siglip", {name: value for name, value in BOTH.items() if name != "projection_dim"}),
    "siglip2": (
        "Siglip2",
        {
            "text_config": TEXT,
            "vision_config": {**DEPTH, "patch_size": 4, "num_patches": 16},
        },
    ),
    "dinov2": ("Dinov2", PATCHES),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**PATCHES, "num_register_tokens": 9}),
    "vit": ("ViT", PATCHES),
    "deit": ("DeiT", PATCHES),
    "beit": ("Beit", PATCHES),
    "vit_mae": ("ViTMAE", {**PATCHES, **MASKED, "mask_ratio": 0.75}),
    "blip": ("Blip", {**BOTH, "text_config": {**TEXT, "encoder_hidden_size": 16}}),
    "swin": ("Swin", SWIN),
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"}),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2}),
    "mobilenet_v1": ("MobileNetV1", {"depth_multiplier": 0.25, "image_size": 16}),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.25, "image_size": 16}),
}
ROBERTA = {**WORDS, "pad_token_id": 1, "max_position_embeddings": 14, "type_vocab_size": 1}
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 3, "num_heads": 2}
DISTILBERT = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 20, "vocab_size": 40, "max_position_embeddings": 12}
SIGLIP_TEXT = {**TEXT, "hidden_size": 16, "projection_size": 16}
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": IMAGE["clip"],
    "chinese_clip": IMAGE["chinese_clip"],
    "siglip": ("Siglip", {"text_config": SIGLIP_TEXT, "vision_config": PATCHES}),
    "siglip2": ("Siglip2", {**IMAGE["siglip2"][1], "text_config": SIGLIP_TEXT}),
    "bert": ("Bert", WORDS),
    "roberta": ("Roberta", ROBERTA),
    "mpnet": ("MPNet", ROBERTA),
    "distilbert": ("DistilBert", DISTILBERT),
    "t5": ("T5", T5),
    "gpt2": ("GPT2", {"vocab_size": 40, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 12}),
}


def save(kind: str, folder: Path, *, text: bool = False, head: str = "Model", **changes: Any) -> Path:
    """Make a tiny random model of a kind and save it with what a processor would save beside it."""
    prefix, settings = (TEXTS if text else IMAGE)[kind]
    config = getattr(transformers, f"{prefix}Config")(**{**settings, **changes})
    torch.manual_seed(1)
    model = getattr(transformers, prefix + head)(config)
    for parameter in model.parameters():  # a random start is often zero, which would hide mistakes
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder
