"""Begin a training with the weights of an earlier run, as the second stage of a recipe does.

Positions are resized when the pictures have another size; everything else must fit. A system that learns something else
than the earlier run did takes its image tower alone or, where one of them looks at no picture, its text tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych import models
from diptych.core.batch import DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.core.saved import WEIGHTS, named_weights, read_record, read_tensors
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.image import ViT
from diptych.encoders.masked import MaskedViT
from diptych.encoders.offers import Sighted, Worded
from diptych.encoders.towers import IMAGE_TOWERS
from diptych.nn.pool import MeanAttentionPool
from diptych.nn.resize import resize_positions
from diptych.nn.windows import WindowAttention

MEANING = (
    *("image_encoder", "image_heads", "image_pool", "image_patch", "image_grid", "image_stem"),
    *("text_encoder", "text_heads", "text_pool", "text_depths", "tower_activation", "image_read", "text_read"),
)
"""Settings of a model without which its weights mean something else, though they may have equal shapes."""


def tokens_of(folder: str, own: Tokenizer, spec: DataSpec, config: Config) -> tuple[Tokenizer, DataSpec]:
    """Return the tokenizer of an earlier run, and the facts about the data with its tokens in them.

    Args:
        folder: of the run.
        own: what the data would be read with otherwise; it stays where the run learnt something else without texts.
        spec: of the data that will be learnt from.
        config: of the system that will learn.

    Raises:
        UserError: when the folder is no run.
    """
    place = Path(folder).expanduser()
    record = read_record(place)
    ready = _learnt_else(record["system"], config) and (place / WEIGHTS).is_file()
    if ready and not _of_tower(read_tensors(place / WEIGHTS), "text"):
        return own, spec
    known = DataSpec.parse(record["spec"])
    names = ("vocabulary", "pad_id", "bos_id", "eos_id", "unk_id")
    return Tokenizer.load(place, known), spec.model_copy(update={name: getattr(known, name) for name in names})


def begin_with(model: Model, folder: str, config: Config) -> None:
    """Give a new model the weights of an earlier run; of one that learnt something else, those of a tower alone.

    Args:
        model: just built; changed in place.
        folder: of the run.
        config: what the model was built from.

    Raises:
        UserError: when the folder is no run with weights, its settings give the weights another meaning, or a weight
            does not fit; the line names it and the settings that differ.
    """
    place = Path(folder).expanduser()
    record = read_record(place)
    if not (place / WEIGHTS).is_file():
        raise UserError(f"init={folder} has no weights yet: its training has not come to a first score; let it go on")
    changed = _changed(record["config"], config)
    weights = read_tensors(place / WEIGHTS)
    own = named_weights(model)
    side = _side(model, weights) if _learnt_else(record["system"], config) else ""
    idle = {"image": "text_", "text": "image_"}.get(side, "of no tower")
    for name in (name for name in MEANING if not name.startswith(idle)):
        if name in changed and not _names_tell(name, record["config"][name], config):
            raise UserError(f"init={folder} cannot be begun with: {changed[name]}; give --set {name} as it was")
    if side:
        weights, own = (_of_tower(found, side) for found in (weights, own))
        if not weights:
            raise UserError(f"init={folder} holds a {record['system']!r}, which has no {side} tower to begin with")
    weights |= {name: _resized(part, weights[name]) for name, part in _grids(model).items() if name in weights}
    _same_tower(model, weights, folder)
    wrong = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    wrong += sorted(weights.keys() - own.keys())
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        told = "; ".join(changed.values()) or "it is of another system, or its data had other classes"
        raise UserError(
            f"init={folder} does not fit at {wrong[0]}{more} ({_shape(weights, wrong[0])} there, "
            f"{_shape(own, wrong[0])} here): {told}"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])


def _learnt_else(system: str, config: Config) -> bool:
    """Tell whether the earlier run learnt another kind of task."""
    return bool(models.load(system).Config.learns != config.learns)


def _side(model: Model, weights: Mapping[str, Tensor]) -> str:
    """Say whose tower a model takes of a run that learnt something else; empty for one that has none."""
    sides = [side for side, kind in (("image", Sighted), ("text", Worded)) if isinstance(model, kind)]
    return next((side for side in sides if _of_tower(weights, side)), sides[0] if sides else "")


def _names_tell(name: str, before: object, config: Config) -> bool:
    """Tell whether a setting is the kind of a built-in tower, each of which has weights of other names."""
    return name == "image_encoder" and {before, config.model_dump()[name]} <= set(IMAGE_TOWERS)


def _same_tower(model: Model, weights: Mapping[str, Tensor], folder: str) -> None:
    """Refuse to mix the two vision transformers, whose runs both say "vit", with a word on which it was."""
    if not isinstance(model, Sighted):
        return
    plain = "image_tower.norm_before.weight" in weights
    if isinstance(model.image_tower, ViT) and not plain and "image_tower.class_token" in weights:
        raise UserError(
            f"init={folder} hid patches from its tower, which is of another kind: give --set image_encoder=masked_vit"
        )
    if isinstance(model.image_tower, MaskedViT) and plain:
        raise UserError(f"init={folder} hid no patches from its tower: give --set image_encoder=vit, or another run")


def _of_tower(weights: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    """Return the weights of one tower alone."""
    return {name: value for name, value in weights.items() if name.startswith(f"{side}_tower.")}


def _changed(before: Mapping[str, Any], config: Config) -> dict[str, str]:
    """Say what is different in the settings that both know."""
    now = config.model_dump(mode="json")
    both = [name for name in now if name in before and before[name] != now[name]]
    return {name: f"{name} was {before[name]!r} and is {now[name]!r}" for name in both}


def _grids(model: nn.Module) -> dict[str, nn.Module]:
    """Find the weights that belong to the places of a grid, by name, and what has them."""
    found: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        if isinstance(part, ViT | MeanAttentionPool):
            found[f"{name}.positions"] = part
        elif isinstance(part, WindowAttention):
            found[f"{name}.bias_table"] = part
    return found


def _resized(part: nn.Module, old: Tensor) -> Tensor:
    if isinstance(part, WindowAttention):
        return resize_positions(old, len(part.bias_table))
    if isinstance(part, MeanAttentionPool):
        return resize_positions(old, len(part.positions) - 1, extra=1)
    assert isinstance(part, ViT)
    extra = int(part.class_token is not None)
    return resize_positions(old, len(part.positions) - extra, extra=extra)


def _shape(weights: Mapping[str, Tensor], name: str) -> str:
    return " x ".join(map(str, weights[name].shape)) or "a number" if name in weights else "nothing"
