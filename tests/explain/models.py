"""Aligned pairs of every make, small and at random, with a picture and a text for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.model import Model
from diptych.models.align import clip
from tests.models.systems import SPEC

TINY = {
    "image_patch": 4,
    "image_dim": 16,
    "image_layers": 2,
    "image_heads": 2,
    "image_width": 8,
    "text_dim": 16,
    "text_layers": 2,
    "text_heads": 2,
    "dim": 12,
}
MAKES: dict[str, dict[str, Any]] = {
    "vit": {},
    "vit of one block": {"image_layers": 1, "text_layers": 1},
    "vit, means": {"image_pool": "mean", "text_pool": "mean"},
    "resnet": {"image_encoder": "resnet", "image_blocks": (1, 1)},
    "swin": {"image_encoder": "swin", "image_patch": 2, "image_window": 3, "image_depths": (2, 2)},
    "swin of patches": {"image_encoder": "swin", "image_patch": 2, "image_window": 2, "image_stem": "patch"},
    "cells": {"image_read": "cells", "text_read": "cells", "queries": 2},
    "mirror": {"image_encoder": "resnet", "image_blocks": (1, 1), "mirror": True, "image_read": "cells", "queries": 2},
    "frozen": {"image_train": "frozen", "text_train": "frozen"},
}
TOKENS = torch.tensor([1, 9, 14, 5, 2])
CONTENT = torch.tensor([False, True, True, True, False])


def made(make: str) -> Model:
    torch.manual_seed(3)
    config = clip.Config(**{**TINY, **MAKES[make]})
    model = clip.build(config, SPEC)
    for parameter in model.parameters():  # blocks that begin at zero would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def picture() -> Tensor:
    return torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)


def cosine(model: Model, image: Tensor, tokens: Tensor = TOKENS) -> Tensor:
    assert isinstance(model, clip.CLIP)
    text = Batch(tokens=tokens[None], token_mask=torch.ones_like(tokens[None], dtype=torch.bool))
    return (model.encode_image(Batch(image=image[None])) * model.encode_text(text)).sum()
