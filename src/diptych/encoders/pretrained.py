"""Pretrained towers by name: a local folder, the Hugging Face hub, timm, open_clip, or an architecture alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diptych.core.errors import UserError
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.facts import TOWER_FILE, TextFacts, image_facts, read_json

IMAGE_POOLS = ("auto", "class", "mean", "pooler")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tower comes from: `kind` is "hub" (folders too), "timm" or "open_clip"; `place` is its name there."""

    kind: str
    place: str
    weights: bool


def origin(name: str) -> Origin:
    """Read a tower's name.

    Args:
        name: a folder, a name on the hub, "timm:NAME", "open_clip:NAME", or "config:FOLDER" for the architecture only.

    Raises:
        UserError: for a folder of an architecture that is not there.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in ("timm", "open_clip"):
        return Origin(kind, rest, weights=True)
    if not colon or kind != "config":
        return Origin("hub", name, weights=True)
    if not Path(rest).is_dir():
        raise UserError(f"{name!r} names no folder: config:FOLDER needs the files of a tower that a run has saved")
    own = read_json(rest, TOWER_FILE) or {}
    return Origin(own.get("kind", "hub"), own.get("name", rest), weights=False)


def image_size(name: str) -> int:
    """Return the side in pixels of the pictures that an image tower was made for."""
    source = origin(name)
    if source.kind == "hub":
        if not source.weights:
            return image_facts(source.place).image_size
        from diptych.encoders import hub

        hub.read_config(source.place)  # an unknown name is told before a missing file
        return image_facts(source.place).image_size
    return image_tower(name, pool="auto", image_size=None).image_size


def text_context(name: str) -> int:
    """Return how many tokens a text tower can read."""
    source = origin(name)
    if source.kind == "hub":
        from diptych.encoders import hub

        return hub.text_length(source.place).context
    return text_tower(name, pool="auto", vocabulary=0, pad_id=0).context


def tokenizer_source(name: str) -> str:
    """Return the folder or hub name whose tokenizer belongs to a text tower.

    Raises:
        UserError: for an architecture alone, whose tokenizer is saved with the run.
    """
    source = origin(name)
    if not source.weights:
        raise UserError(f"{name!r} is an architecture without a tokenizer: load the run's own tokenizer.json")
    if source.kind == "open_clip":
        return "openai/clip-vit-base-patch32"  # the byte-pair encoding that all text towers built in open_clip share
    return source.place


def image_tower(name: str, *, pool: str, image_size: int | None, grid: int | None = None) -> ImageEncoder:
    """Build a pretrained image tower.

    Args:
        name: as for `origin`.
        pool: "auto", "class", "mean" or "pooler".
        image_size: side of the pictures, where it shall be another than the tower was made for.
        grid: number of the hidden state that gives the grid, of a transformers tower; its last output when None.

    Raises:
        UserError: in one line, when it cannot be had or does not take such pictures.
    """
    if pool not in IMAGE_POOLS:
        raise UserError(f"unknown image pool {pool!r} for a pretrained tower (allowed: {', '.join(IMAGE_POOLS)})")
    source = origin(name)
    if source.kind == "timm":
        from diptych.encoders.foreign import timm_image

        return timm_image(source.place, pool=pool, image_size=image_size, weights=source.weights)
    if source.kind == "open_clip":
        from diptych.encoders.foreign import open_clip_image

        return open_clip_image(source.place, pool=pool, weights=source.weights)
    from diptych.encoders import hub

    hub.read_config(source.place)
    facts = image_facts(source.place)
    facts = replace(facts, image_size=image_size or facts.image_size, grid=grid)
    if pool != "auto":
        facts = replace(facts, pool=pool)
    return hub.hub_image(source.place, facts, weights=source.weights)


def text_tower(name: str, *, pool: str, vocabulary: int, pad_id: int, depths: tuple[int, ...] = ()) -> TextEncoder:
    """Build a pretrained text tower.

    Args:
        name: as for `origin`.
        pool: "auto", "class", "last", "max" or "mean".
        vocabulary: how many token ids the tokenizer gives.
        pad_id: token id of padding.
        depths: numbers of the hidden states whose means are the summary, of a transformers tower; its own when empty.

    Raises:
        UserError: in one line, when it cannot be had or knows fewer token ids.
    """
    source = origin(name)
    if source.kind == "timm":
        raise UserError(f"timm has image towers only, got text tower {name!r}: name one of transformers or open_clip")
    if source.kind == "open_clip":
        from diptych.encoders.foreign import open_clip_text

        return open_clip_text(source.place, pool=pool, weights=source.weights)
    from diptych.encoders import hub

    said = hub.text_length(source.place)
    facts = TextFacts(said.context, said.pool if pool == "auto" else pool, depths)
    return hub.hub_text(source.place, facts, weights=source.weights, vocabulary=vocabulary, pad_id=pad_id)
