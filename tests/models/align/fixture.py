"""Three pairs of unit vectors whose losses are known, and a model's comparison of them in float64."""

import math

import torch

from diptych import models
from diptych.core.batch import Batch, DataSpec

IMAGE = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
TEXT = torch.tensor([[0.8, 0.6], [0, 1], [0.28, 0.96]], dtype=torch.float64)
SPEC = DataSpec(image_size=16, vocabulary=50, context=6)
SMALL = {"image_encoder": "vit", "image_patch": 8, "image_dim": 16, "image_layers": 1, "image_heads": 2}
SMALL |= {"text_encoder": "transformer", "text_dim": 16, "text_layers": 1, "text_heads": 2, "dim": 8}


def make(system, **settings):
    module = models.load(system)
    values = {name: value for name, value in (SMALL | settings).items() if name in module.Config.model_fields}
    return module.build(module.Config.parse(values), SPEC)


def compared(system, *, scale=2.0, batch=None, **settings):
    """Let a system compare the fixture; scale 2 is temperature 0.5."""
    model = make(system, **settings).double()
    with torch.no_grad():
        model.log_scale.fill_(math.log(scale))
    return model.couple((IMAGE, TEXT), Batch() if batch is None else batch).total.item()


def pairs(size=4):
    return Batch(
        image=torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8),
        tokens=torch.randint(4, 49, (size, 6)),
        token_mask=torch.ones(size, 6, dtype=torch.bool),
        pair_id=torch.arange(size),
    )
