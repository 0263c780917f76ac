"""Every system at a size that a test can afford; a new file under `models/` gets every contract test by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diptych import models
from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.model import Model

SPEC = DataSpec(
    image_size=16,
    vocabulary=40,
    context=8,
    pad_id=0,
    bos_id=1,
    eos_id=2,
    unk_id=3,
    classes=("one", "two", "three"),
    answers=("red", "blue", "yes", "2"),
)

# Settings that make a system small; fields that a system's Config does not have are left out.
SMALL = {
    "image_patch": 8,
    "image_dim": 16,
    "image_layers": 1,
    "image_heads": 2,
    "text_dim": 16,
    "text_layers": 1,
    "text_heads": 2,
    "text_context": 8,
    "text_vocabulary": 300,
    "dim": 12,
    "decoder_dim": 32,
    "decoder_layers": 1,
    "decoder_heads": 2,
}

TOWERS = {"image_encoder": "vit", "text_encoder": "transformer"}  # for systems whose own are pretrained

SMALL_CNN = {"image_width": 8, "image_blocks": (1, 1), "heads": 2, "hidden": 24, "encoder_layers": 2}
SMALL_GAN = {"generator_width": 4, "critic_width": 4, "noise": 5, "text_code": 6}
SMALL_ASK = {"image_width": 8, "image_blocks": (1, 1), "heads": 2, "hidden": 24}

# More than one shape of a system, by the settings that make it.
VARIANTS: dict[str, list[dict[str, object]]] = {
    "clip": [
        {},
        {"image_encoder": "resnet", "image_width": 8, "image_blocks": (1, 1)},
        {"head": "mlp", "hidden": 8},
        {"image_read": "cells", "text_read": "cells", "queries": 2, "mirror": True},
    ],
    "adversarial": [{"hidden": 16, "judge_hidden": 8}],
    "attention_vqa": [
        {**SMALL_ASK, "fusion": "attention"},
        {**SMALL_ASK, "fusion": "concat", "hops": 0, "image_encoder": "vit", "objective": "scores"},
        {**SMALL_ASK, "fusion": "sum", "hops": 1, "film": 1},
        {**SMALL_ASK, "fusion": "sum"},
        {**SMALL_ASK, "fusion": "gated"},
        {**SMALL_ASK, "fusion": "tensor", "fusion_width": 4},
        {**SMALL_ASK, "fusion": "low_rank", "rank": 3},
        {**SMALL_ASK, "fusion": "mlb", "positions": False},
        {**SMALL_ASK, "fusion": "mutan", "fusion_width": 5, "rank": 2},
        {**SMALL_ASK, "fusion": "weighted"},
    ],
    "align": [{"image_width": 8, "image_blocks": (1, 1)}, {"image_encoder": "vit", "smoothing": 0.0}],
    "cnn_captioner": [{**SMALL_CNN}, {**SMALL_CNN, "image_encoder": "vit", "tied": False, "smoothing": 0.0}],
    "dann": [
        {"judge_hidden": 8, "dropout": 0.0},
        {"judge_hidden": 8, "head": "mlp", "hidden": 16, "image_encoder": "resnet", "image_width": 8},
    ],
    "data2vec": [
        {"image_patch": 4, "top": 1},
        {"image_patch": 4, "image_layers": 2, "mask": 0.5, "head": "mlp", "image_pool": "class"},
        {"modality": "text", "top": 1, "span": 2},
        {"modality": "text", "text_layers": 2, "head": "mlp", "mask": 0.5, "normalise": "tokens"},
    ],
    "distill": [  # variant=similarity needs a run to teach it: see its own test
        {"alpha_steps": 20},
        {"alpha_steps": 0, "queue": 8, "image_encoder": "resnet", "image_width": 8, "image_blocks": (1, 1)},
        {"variant": "feature", "text_train": "frozen"},
        {"variant": "feature", "text_train": "frozen", "distance": "squared", "mirror": True, "standardise": True},
    ],
    "fine_tune": [{}, {"image_encoder": "resnet", "image_width": 8, "image_blocks": (1, 1)}],
    "gan_cls": [
        {**SMALL_GAN},
        {**SMALL_GAN, "text_train": "frozen", "interpolation": 0.0, "cls_weight": 0.0, "critic_norm": "none"},
        {**SMALL_GAN, "condition": "everywhere", "critic_norm": "spectral", "match": "projection", "game": "hinge"},
    ],
    "mae": [{}, {"normalise_patches": False, "image_pool": "mean"}],
    "mae_clip": [
        {},
        {"align_from": "visible", "gradient_norms": True},
        {"align": "adversarial", "image_pool": "mean"},
        {"align": "distillation", "alpha_steps": 20, "queue": 4, "condition": True},
    ],
    "multimodal_skipgram": [
        {"image_encoder": "vit", "dim": 128},
        {"image_encoder": "vit", "dim": 32, "image_dim": 32, "variant": "A"},
    ],
    "mmd": [{"weight": 0.5}, {"kernels": "one", "match": "features", "head": "mlp", "hidden": 16}],
    "mutual": [{}, {"feedback": "one-way", "decoder_layers": 2}],
    "mvae": [{}, {"rebuild": "own", "image_encoder": "resnet", "image_width": 8, "image_blocks": (1, 1)}],
    "shared": [
        {},
        {"objective": "autoencode"},
        {"objective": "correlate", "rebuild": "other"},
        {"objective": "translate", "contrast_weight": 0.5},
    ],
    "meshed_memory": [{**SMALL_CNN, "memory": 3}, {**SMALL_CNN, "memory": 0, "positions": False, "encoder_layers": 1}],
    "mapper": [
        {**TOWERS},
        {**TOWERS, "objective": "hardest", "hardest_after": 20, "similarity": "euclidean", "head": "mlp", "hidden": 8},
        {**TOWERS, "objective": "contrastive", "image_read": "cells", "text_read": "cells", "queries": 2},
        {**TOWERS, "objective": "pair"},
    ],
    "question_only": [{"hidden": 24}, {"hidden": 24, "objective": "scores"}],
    "skipgram": [{"dim": 128}],
    "sgraf": [
        {"match_dim": 8, "similarity_dim": 8},
        {"match_dim": 8, "similarity_dim": 8, "reason": "sgr", "objective": "hardest", "hardest_after": 20},
        {"match_dim": 8, "reason": "scan", "objective": "triplet"},
    ],
    "vsrn": [
        {"region_dim": 8},
        {"region_dim": 8, "gather": "mean", "objective": "hardest", "hardest_after": 20, "caption_weight": 1.0},
    ],
    "unicl": [{}, {"image_encoder": "swin", "image_patch": 2, "image_depths": (1, 2), "image_window": 3}],
}


@dataclass(frozen=True)
class Case:
    system: str
    settings: tuple[tuple[str, object], ...]

    def __str__(self) -> str:
        return "-".join([self.system, *(f"{name}={value}" for name, value in self.settings)])

    def config(self) -> Config:
        kind = models.load(self.system).Config
        values = {name: value for name, value in SMALL.items() if name in kind.model_fields}
        return kind.parse(values | dict(self.settings))

    def build(self, seed: int = 0) -> Model:
        torch.manual_seed(seed)
        return models.load(self.system).build(self.config(), SPEC)


CASES = [Case(name, tuple(variant.items())) for name in models.names() for variant in VARIANTS.get(name, [{}])]


def make_batch(size: int = 6, *, seed: int = 0) -> Batch:
    """Ragged texts, two rows of one picture, and labels."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (size,), generator=random)
    lengths[0] = 8
    tokens = torch.randint(4, SPEC.vocabulary, (size, 8), generator=random)
    mask = torch.arange(8) < lengths[:, None]
    tokens[:, 0] = SPEC.bos_id
    tokens[torch.arange(size), lengths - 1] = SPEC.eos_id
    image = torch.randint(0, 256, (size, 3, 16, 16), generator=random, dtype=torch.uint8)
    pair_id = torch.arange(size)
    pair_id[1], image[1] = pair_id[0], image[0]
    return Batch(
        image=image,
        tokens=torch.where(mask, tokens, SPEC.pad_id),
        token_mask=mask,
        label=torch.arange(size) % 3,
        domain=(torch.arange(size) > 2).long(),
        pair_id=pair_id,
        answer=torch.arange(size) % 4,
        answer_scores=torch.eye(4)[torch.arange(size) % 4],
        negatives=torch.randint(4, SPEC.vocabulary, (size, 5), generator=random),
    )
