"""What the small files beside a pretrained tower say: pixel statistics, picture size, pooling and length of texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.core.errors import UserError
from diptych.encoders.remote import hub_file

TOWER_FILE = "tower.json"  # ours: in the folder of a run, it tells all that the origin's own files told


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """How pictures are made ready: side in pixels, crop ("squash" or "center"), mean and std of values in [0, 1].

    `grid` is the number of the hidden state that gives the tokens, as -2 for the last but one; None: the last output.
    """

    image_size: int
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pool: str = "auto"
    grid: int | None = None


@dataclass(frozen=True, slots=True)
class TextFacts:
    """The most tokens of a text, and how they are pooled ("auto" when the model's kind decides).

    `depths` are the numbers of hidden states whose means over the words stand side by side as the summary; none: the
    usual summary.
    """

    context: int
    pool: str = "auto"
    depths: tuple[int, ...] = ()


def read_json(place: str, file: str) -> Any:
    """Read a small JSON file of a folder or of a repository on the hub.

    Returns:
        Its content, or None when the place has no such file, or cannot be asked.
    """
    folder = Path(place).expanduser()
    path = folder / file if folder.is_dir() else hub_file(place, file)
    if path is None:
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def image_facts(place: str) -> ImageFacts:
    """Read how a pretrained image tower wants its pictures.

    Raises:
        UserError: when its files do not say.
    """
    own = read_json(place, TOWER_FILE)
    if own is not None:
        return ImageFacts(own["image_size"], own["crop"], tuple(own["mean"]), tuple(own["std"]), own["pool"])
    processor = read_json(place, "preprocessor_config.json")
    if processor is None:
        processor = (read_json(place, "processor_config.json") or {}).get("image_processor")
    if processor is None:
        raise UserError(
            f"image tower {place!r} has no preprocessor_config.json at hand, which tells the pixel statistics: "
            "copy it from the model that it came from, or ask for the tower once while online"
        )
    size, crop = _size_and_crop(processor)
    mean, std = _statistics(processor, place)
    return ImageFacts(size, crop, mean, std)


def _size_and_crop(processor: dict[str, Any]) -> tuple[int, str]:
    """Read the side of the square, and whether it is cut from the middle or squashed."""
    center = bool(processor.get("do_center_crop", False)) and processor.get("crop_size") is not None
    given = processor["crop_size"] if center else processor.get("size", 224)
    if "max_num_patches" in processor and "size" not in processor:
        given = int(processor["max_num_patches"] ** 0.5) * processor["patch_size"]
    if isinstance(given, int):
        return given, "center" if center else "squash"
    if "shortest_edge" in given:
        return int(given["shortest_edge"]), "center"
    return int(given.get("height", 224)), "center" if center else "squash"


def _statistics(processor: dict[str, Any], place: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read mean and std, for values in [0, 1]."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.get("do_normalize", True):
        if "image_mean" not in processor or "image_std" not in processor:
            raise UserError(f"preprocessor_config.json of {place!r} does not tell image_mean and image_std: add them")
        mean, std = tuple(processor["image_mean"]), tuple(processor["image_std"])
    whole = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("rescale_offset", False) else 0.0
    # (whole * x - offset - mean) / std, written as one subtraction and one division of x in [0, 1]
    return tuple((value + offset) / whole for value in mean), tuple(value / whole for value in std)


def text_facts(place: str, longest: int) -> TextFacts:
    """Read how long a text may be for a pretrained text tower and how a sentence encoder pools.

    Args:
        place: folder or name on the hub.
        longest: the most tokens that the model itself can read.

    Raises:
        UserError: for a sentence encoder that pools in a way we do not know.
    """
    own = read_json(place, TOWER_FILE)
    if own is not None:
        return TextFacts(own["context"], own["pool"])
    limits = [
        (read_json(place, "sentence_bert_config.json") or {}).get("max_seq_length"),
        (read_json(place, "tokenizer_config.json") or {}).get("model_max_length"),
        longest,
    ]
    return TextFacts(int(min(limit for limit in limits if limit is not None)), _sentence_pool(place))


def _sentence_pool(place: str) -> str:
    """Read the pooling of a sentence encoder; what comes after it (a norm, a dense layer) belongs to the model."""
    modules = read_json(place, "modules.json")
    pooling = [part["path"] for part in modules or () if part["type"].rsplit(".", 1)[-1] == "Pooling"]
    if not pooling:
        return "auto"
    said = read_json(place, f"{pooling[0]}/config.json") or {}
    names = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "class",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_lasttoken": "last",
    }
    modes: list[str] = [names.get(name, name) for name, on in said.items() if name.startswith("pooling_mode_") and on]
    modes = modes or [{"cls": "class", "lasttoken": "last"}.get(said.get("pooling_mode", "mean"), "mean")]
    if len(modes) != 1 or modes[0] not in names.values():
        raise UserError(
            f"sentence encoder {place!r} pools by {' and '.join(modes)} (known: {', '.join(names.values())}): "
            "set text_pool to one of these"
        )
    return modes[0]
