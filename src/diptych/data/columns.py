"""Which column of a table is the picture, which the captions: named by the user or guessed from usual names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.core.errors import UserError, nearest

IMAGE = (
    *("image", "images", "image_path", "imagepath", "img_path", "filepath", "file_path", "path", "file_name"),
    *("filename", "file", "img", "image_name", "image_file", "picture", "photo", "jpg", "jpeg", "png", "image_url"),
    *("url", "uri"),
)
CAPTION = (
    *("captions", "caption", "sentences", "sentence", "texts", "text", "descriptions", "description", "alt_text"),
    *("alttext", "alt", "comment", "title", "txt", "prompt"),
)
SPLIT = ("split", "set", "subset", "partition", "fold")
LABEL = ("label", "class", "category", "class_name", "cls")


@dataclass(frozen=True, slots=True)
class Asked:
    """The columns that the user named; None where they are to be guessed.

    `caption` may name several, with commas between. An empty word means that there is no such column.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table by what they mean; "" and () where there is none."""

    image: str
    captions: tuple[str, ...]
    split: str
    label: str

    def described(self) -> str:
        """Say what was found, for people."""
        parts = [f"image = {self.image}"] if self.image else []
        parts.append(f"captions = {' + '.join(self.captions)}" if self.captions else "no captions")
        parts += [f"split = {self.split}"] if self.split else []
        parts += [f"label = {self.label}"] if self.label else []
        return ", ".join(parts)


def find_columns(names: Sequence[str], asked: Asked, *, where: str, image: bool = True) -> Columns:
    """Say which column means what.

    Args:
        names: the columns there are.
        asked: what the user named.
        where: the file, for the error.
        image: whether there must be a column of pictures (not so in a shard, where they are files of their own).

    Raises:
        UserError: when a column that was named is not there, or none looks like a picture.
    """
    by_plain = {_plain(name): name for name in reversed(names)}
    used: list[str] = []

    def find(given: str | None, usual: Iterable[str], option: str) -> str:
        if given:
            found = _named(given, names, option, where)
        elif given == "":
            return ""
        else:
            found = next((by_plain[name] for name in usual if name in by_plain and by_plain[name] not in used), "")
        used.append(found)
        return found

    picture = find(asked.image, IMAGE, "--image-column") if image else ""
    if image and not picture:
        raise UserError(
            f"{where} has no column of pictures that can be guessed (columns: {', '.join(names)}); "
            f"name it with --image-column"
        )
    if asked.caption:
        captions = tuple(_named(name.strip(), names, "--caption-column", where) for name in asked.caption.split(","))
    else:
        one = find(asked.caption, CAPTION, "--caption-column")
        captions = (one,) if one else () if asked.caption == "" else _numbered(names)
    used += captions
    split = find(asked.split, SPLIT, "--split-column")
    return Columns(picture, captions, split, find(asked.label, LABEL, "--label-column"))


def caption_texts(value: Any) -> list[str]:
    """Collect the captions in a value: a text, a list, a JSON list inside of a text, or objects that hold one."""
    if value is None:
        return []
    if isinstance(value, str):
        if value.startswith("["):
            try:
                inner = json.loads(value)
            except ValueError:
                inner = None
            if isinstance(inner, list) and all(isinstance(item, str) for item in inner):
                return inner
        return [value]
    if isinstance(value, Mapping):
        return next((caption_texts(value[key]) for key in ("raw", "caption", "text", "sentence") if key in value), [])
    if isinstance(value, Iterable):
        items = list(value)
        texts = [item for item in items if isinstance(item, str)]
        return texts if len(texts) == len(items) else [text for item in items for text in caption_texts(item)]
    return [str(value)]


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _named(given: str, names: Sequence[str], option: str, where: str) -> str:
    if given not in names:
        raise UserError(
            f"{where} has no column {given!r}{nearest(given, names)} (columns: {', '.join(names)}); see {option}"
        )
    return given


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Find `caption_1 caption_2 ...` and the like, in the order of their numbers."""
    found: list[tuple[int, str]] = []
    for name in names:
        match = re.fullmatch(r"(?:caption|sentence|text|description|comment)s?_?(\d+)", _plain(name))
        if match:
            found.append((int(match[1]), name))
    return tuple(name for _, name in sorted(found))
