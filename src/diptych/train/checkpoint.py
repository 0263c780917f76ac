"""Checkpoint: a folder with the weights and all that is needed to build the model again; no pickled code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.core.model import Model
from diptych.core.saved import RECORD, WEIGHTS, fit, load_weights, named_weights, read_record
from diptych.train.files import write_json, write_tensors

__all__ = ["RECORD", "WEIGHTS", "fit", "load_weights", "named_weights", "read_record", "save_model"]


def save_model(folder: Path, model: Model, record: Mapping[str, Any]) -> None:
    """Write a model's weights and its record.

    Args:
        folder: made when it is not there.
        model: on any device, not sharded.
        record: `{"system", "config", "spec", "data", "train", "versions", "command"}` as far as known; plain values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, named_weights(model))
    write_json(folder / RECORD, record)
