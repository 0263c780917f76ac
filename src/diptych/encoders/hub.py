"""Pretrained towers through transformers, from the hub or a local folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError, nearest
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.facts import TOWER_FILE, ImageFacts, TextFacts, text_facts
from diptych.encoders.offers import WordTable
from diptych.encoders.readers import (
    IMAGE_READERS,
    TEXT_READERS,
    ImageReader,
    TextReader,
    pad_full,
    pool_text,
    read_depths,
    read_grid,
    read_image,
)
from diptych.encoders.remote import hub_listing

BUILT_IN = ("vit", "resnet", "swin", "transformer")


class HubImage(ImageEncoder):
    """An image tower of transformers.

    Args:
        model: the tower alone.
        reader: how its kind is read.
        facts: how it wants its pictures.
    """

    adopted = True

    def __init__(self, model: Any, reader: ImageReader, facts: ImageFacts) -> None:
        super().__init__(1, image_size=facts.image_size, mean=facts.mean, std=facts.std, crop=facts.crop)
        self.model, self.reader, self.facts = model, reader, facts
        self.pool = reader.pool if facts.pool == "auto" else facts.pool
        self.norm = next((name for name, _ in model.named_modules() if reader.norm and name.endswith(reader.norm)), "")
        model.config.output_hidden_states = facts.grid is not None
        patch = getattr(model.config, "patch_size", None)
        self.places = (facts.image_size // patch) ** 2 if isinstance(patch, int) else 0
        with _as_user_error(f"pictures of {facts.image_size} pixels"), torch.no_grad():
            pixels = torch.zeros(1, len(facts.mean), facts.image_size, facts.image_size)
            states = self.eval().encode(pixels)
        self.dim, self.token_dim = states.summary.shape[1], states.tokens.shape[2]

    def assets(self) -> dict[str, bytes]:
        """Return its config.json and our tower.json."""
        return _assets(self.model, asdict(self.facts))

    def recipe(self) -> str:
        """Return the settings, pixel statistics and pooling."""
        return f"{self.model.config.to_json_string()} {self.facts} {self.pool}"

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels."""
        norm = self.model.get_submodule(self.norm) if self.norm else None
        out = self.reader.run(self.model, pixels)
        tokens, summary = read_image(out, pool=self.pool, places=self.places, norm=norm)
        if self.facts.grid is not None:
            tokens = read_grid(out, self.facts.grid, places=self.places)
        return States(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), summary)


class HubText(TextEncoder, WordTable):
    """A text tower of transformers.

    Args:
        model: the tower alone.
        reader: how its kind is read.
        facts: how long a text may be, and its pooling.
        pad_id: token id that fills a text up, for a tower that reads its padding.
    """

    adopted = True

    def __init__(self, model: Any, reader: TextReader, facts: TextFacts, *, pad_id: int = 0) -> None:
        super().__init__(1, context=facts.context)
        self.model, self.reader, self.facts, self.pad_id = model, reader, facts, pad_id
        self.pool = reader.pool if facts.pool == "auto" else facts.pool
        model.config.output_hidden_states = bool(facts.depths)
        with _as_user_error("a text"), torch.no_grad():
            nothing = torch.zeros(1, 2, dtype=torch.long)
            states = self.eval().encode(nothing, torch.ones(1, 2, dtype=torch.bool))
        self.dim, self.token_dim = states.summary.shape[1], states.tokens.shape[2]

    def assets(self) -> dict[str, bytes]:
        """Return its config.json and our tower.json."""
        return _assets(self.model, asdict(self.facts))

    def recipe(self) -> str:
        """Return the settings and pooling."""
        return f"{self.model.config.to_json_string()} {self.facts} {self.pool} {self.pad_id}"

    def word_table(self) -> nn.Embedding:
        """Return the table of the word vectors."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def encode(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> States:
        """Encode token ids."""
        if self.reader.pool == "full":
            full = pad_full(tokens, mask, context=self.context, pad_id=self.pad_id)
            out = self.model(input_ids=full)
            states = out.last_hidden_state[:, : tokens.shape[1]]
            summary = out.pooler_output if self.pool == "full" else pool_text(states, mask, self.pool)
            return States(states, mask, summary)
        out = self.model(input_ids=tokens, attention_mask=mask.long())
        states = out.last_hidden_state
        if self.facts.depths:
            return States(states, mask, read_depths(out, self.facts.depths, mask))
        return States(states, mask, pool_text(states, mask, self.pool))


def hub_image(place: str, facts: ImageFacts, *, weights: bool) -> HubImage:
    """Build an image tower from a folder or a name on the hub; without weights, its architecture only.

    Raises:
        UserError: when it cannot be had, or is not an image tower.
    """
    config = read_config(place)
    reader = IMAGE_READERS.get(config.model_type, ImageReader())
    model = _load(place, config, reader, weights=weights)
    if model.main_input_name != "pixel_values":
        raise UserError(f"{place!r} is a {config.model_type} model, which does not take pictures: name an image tower")
    return HubImage(model, reader, facts)


def hub_text(place: str, facts: TextFacts, *, weights: bool, vocabulary: int, pad_id: int) -> HubText:
    """Build a text tower from a folder or a name on the hub; without weights, its architecture only.

    Raises:
        UserError: when it cannot be had, is not a text tower, or knows fewer token ids than the vocabulary has.
    """
    config = read_config(place)
    reader = TEXT_READERS.get(config.model_type, TextReader())
    model = _load(place, config, reader, weights=weights)
    if model.main_input_name != "input_ids":
        raise UserError(f"{place!r} is a {config.model_type} model, which does not read text: name a text tower")
    known = model.get_input_embeddings().num_embeddings
    if vocabulary > known:
        raise UserError(
            f"text tower {place!r} knows {known} token ids, but the tokenizer has {vocabulary}: "
            "use the tokenizer that belongs to the tower"
        )
    return HubText(model, reader, facts, pad_id=pad_id)


def read_config(place: str) -> Any:
    """Read the config.json of a folder or of a name on the hub.

    Raises:
        UserError: in one line, when there is none or the hub cannot be asked.
    """
    from transformers import AutoConfig

    folder = Path(place).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"folder {place!r} holds no config.json: name a folder saved by transformers' save_pretrained")
    why = ""
    try:
        return AutoConfig.from_pretrained(str(folder) if folder.is_dir() else place, local_files_only=True)
    except (ValueError, KeyError) as error:
        why = _first_line(error)
    except OSError as error:
        why = _first_line(error) if folder.is_dir() else hub_listing(place)[1]
    if not why:
        with _as_user_error(f"the config.json of {place!r}"):
            return AutoConfig.from_pretrained(place)
    if folder.is_dir():
        raise UserError(f"the config.json in {place!r} cannot be used: {why}")
    hint = nearest(place, BUILT_IN) or "; check the name, or download it once while online"
    raise UserError(
        f"tower {place!r} is neither built in ({', '.join(BUILT_IN)}), nor a folder, nor a model that the hub or "
        f"its local cache gives{hint} ({why})"
    )


def text_length(place: str) -> TextFacts:
    """Read how long a text may be, and the pooling, without loading weights."""
    config = read_config(place)
    reader = TEXT_READERS.get(config.model_type, TextReader())
    said = config.get_text_config().to_dict()
    return text_facts(place, int(said.get("max_position_embeddings", said.get("n_positions", 512))) - reader.offset)


def _load(place: str, config: Any, reader: ImageReader | TextReader, *, weights: bool) -> Any:
    """Make the model in float32, without a pooler that nobody reads, so that every parameter gets a gradient."""
    import transformers

    whole = weights and reader.part is not None
    kind = transformers.AutoModel if reader.tower is None or whole else getattr(transformers, reader.tower)
    folder = str(Path(place).expanduser()) if Path(place).expanduser().is_dir() else place
    with _quiet(), _as_user_error(f"the weights of {place!r}"):
        if weights:
            model, said = _from_cache_or_hub(kind, folder)
            missing = set(said["missing_keys"])
        else:
            alone = reader.tower is None
            model = kind.from_config(config) if alone else kind(kind.config_class.from_pretrained(folder))
            model, missing = model.float(), set()
    if whole:
        model = model.get_submodule(reader.part)
        missing = {name.removeprefix(f"{reader.part}.") for name in missing if name.startswith(f"{reader.part}.")}
    if (
        reader.pool not in ("pooler", "full")
        and "add_pooling_layer" in inspect.signature(type(model).__init__).parameters
    ):
        model.pooler = None
        missing = {name for name in missing if not name.startswith("pooler.")}
    if missing:
        raise UserError(
            f"the checkpoint {place!r} lacks {len(missing)} weights of its {type(model).__name__}, "
            f"such as {min(missing)}: it is cut short, or of another kind"
        )
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):  # read in pretraining only: it would never get a gradient
            parameter.requires_grad_(False)
    return model


def _from_cache_or_hub(kind: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """Load weights without asking the hub, where that is possible."""
    try:
        loaded = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    except OSError:
        if Path(name).is_dir():
            raise
        loaded = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    model, said = loaded
    return model, said


def _assets(model: Any, facts: dict[str, Any]) -> dict[str, bytes]:
    return {
        "config.json": model.config.to_json_string(use_diff=False).encode(),
        TOWER_FILE: (json.dumps(facts, indent=1) + "\n").encode(),
    }


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _as_user_error(what: str) -> Iterator[None]:
    """Turn what a library raises over files or shapes into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise UserError(f"this tower cannot take {what}: {_first_line(error)}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing its own report and bars while it loads."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
