"""What a run folder holds, read again: its record, and weights that are put into a model built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diptych.core.errors import UserError

WEIGHTS, RECORD = "model.safetensors", "config.json"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: when it is not there, cut short, or of another kind.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; is {path.parent} the folder of a finished run?")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is cut short or no safetensors file ({error}); copy it again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: when it is cut short or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is cut short or no JSON; copy the folder again or train anew") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; it was not written by diptych")
    return value


def read_record(folder: Path, *, system: str | None = None) -> dict[str, Any]:
    """Read what a checkpoint folder says of itself.

    Args:
        folder: of a run.
        system: the only system that will do; None takes any.

    Raises:
        UserError: when the folder is no checkpoint, is cut short, or is of another system.
    """
    if not folder.is_dir():
        raise UserError(f"no run in {folder}: there is no such folder")
    if not (folder / RECORD).is_file():
        raise UserError(f"no run in {folder}: it has no {RECORD}; give a folder that `diptych train --out` wrote")
    record = read_json(folder / RECORD)
    missing = [key for key in ("system", "config", "spec") if key not in record]
    if missing:
        raise UserError(f"{folder / RECORD} does not say {', '.join(missing)}; it was not written by diptych")
    if system is not None and record["system"] != system:
        raise UserError(f"{folder} holds a {record['system']!r}, not a {system!r}; choose a run of that system")
    return record


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and saved buffers by name; one that has several names only under its first."""
    seen: set[int] = set()
    kept = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            kept[name] = value
            seen.add(id(value))
    return kept


def load_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights of a checkpoint into a model that was built from the same record.

    Raises:
        UserError: when they are missing, cut short, or do not fit; the line names the first that does not.
    """
    weights = read_tensors(folder / WEIGHTS)
    fit(model, weights, str(folder))
    with torch.no_grad():
        for name, value in named_weights(model).items():
            value.copy_(weights[name])


def fit(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights whose names or shapes are not those of the model.

    Raises:
        UserError: with the first name or shape that differs.
    """
    own = named_weights(model)
    for name, value in own.items():
        if name in weights and weights[name].shape != value.shape:
            given, wanted = tuple(weights[name].shape), tuple(value.shape)
            raise UserError(
                f"{where}: {name} has shape {given} there and {wanted} here; "
                "the vocabulary, image size or width is another one: build the model from that folder's config.json"
            )
    for kind, names in (("lacks", own.keys() - weights.keys()), ("has unknown", weights.keys() - own.keys())):
        if names:
            some = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(f"{where} {kind} weights: {some}; it is of another system or of other settings")
