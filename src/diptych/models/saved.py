"""A run folder becomes its model again: built from its record, with its weights, wherever the folder was moved to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych import models
from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.core.saved import WEIGHTS, load_weights

TOWERS = ("image_encoder", "text_encoder")
"""Fields of a config that name a tower; also names of folders inside a run, which rebuild pretrained ones."""


def open_model(folder: Path, record: Mapping[str, Any]) -> Model:
    """Build the model of a run folder and give it its weights; it is in evaluation mode.

    Args:
        folder: of the run.
        record: its own, as `read_record` returns it.

    Raises:
        UserError: when it has no weights yet, or they do not fit its system.
    """
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no weights yet: its training has not come to a first score; let it go on")
    module = models.load(record["system"])
    values: dict[str, Any] = dict(record["config"])
    for name in TOWERS:
        if name in values and (folder / name).is_dir():
            values[name] = f"config:{folder / name}"
    model: Model = module.build(module.Config.parse(values), DataSpec.parse(record["spec"]))
    load_weights(model, folder)
    return model.eval()
