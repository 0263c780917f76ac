"""Front door for webdataset tar shards: each is indexed once, then its pictures are read in place, in any order."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import UserError
from diptych.data.cache import cache_folder
from diptych.data.columns import Asked
from diptych.data.formats import PICTURE_SUFFIXES
from diptych.data.packed import PackedStrings
from diptych.data.places import Parts, file_stamp
from diptych.data.sidecar import PEEKED, TEXT_SUFFIXES, add_sidecars, has_captions, read_sidecar
from diptych.data.source import split_name
from diptych.data.table import Builder, Table

Member = tuple[str, int, int]  # extension, start, size


def shard_paths(pattern: str) -> list[Path]:
    """Return the files of `shards/{000..099}.tar`, `shards/*.tar`, a folder of `.tar` files, or one such file.

    Raises:
        UserError: when there is none, or a file of a brace pattern is missing.
    """
    if Path(pattern).is_dir():
        return sorted(Path(pattern).glob("*.tar"))
    paths = [Path(one) for part in _braces(pattern) for one in (sorted(glob.glob(part)) or [part])]  # noqa: PTH207
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"there is no shard {missing[0]} ({len(missing)} of {len(paths)} in {pattern} are missing)")
    return paths


def open_shards(pattern: str, asked: Asked) -> Table:
    """Read webdataset shards: files that share a name up to its first dot are one example.

    Raises:
        UserError: for a missing shard, or when no example has a picture.
    """
    paths = shard_paths(pattern)
    kind = f"webdataset shard {paths[0].name}" if len(paths) == 1 else f"{len(paths)} webdataset shards"
    builder = Builder(kind, captioned=True)
    stream = _records(paths, builder)
    first = list(itertools.islice(stream, PEEKED))
    builder.captioned = has_captions([found.record for found in first], asked)
    builder.note = "captions from .txt and .json; " if builder.captioned else "no captions; "
    spans: list[tuple[int, int, int]] = []

    def keep(span: tuple[int, int, int]) -> bool:
        spans.append(span)
        return True

    for found in itertools.chain(first, stream):
        path = paths[found.span[0]]
        split = split_name(re.split(r"[-_.]", path.stem)[0]) or split_name(path.parent.name)
        add_sidecars(builder, found.record, asked, key=found.key, split=split, find=partial(keep, found.span))
    return builder.table(Parts(paths, np.array(spans, dtype=np.int64).reshape(-1, 3)))


class _Found(NamedTuple):
    key: str
    span: tuple[int, int, int]
    record: dict[str, Any]


def _records(paths: Sequence[Path], builder: Builder) -> Iterator[_Found]:
    texts = Parts(paths, np.zeros((0, 3), dtype=np.int64))
    keys: set[str] = set()
    for number, path in enumerate(paths):
        for name, members in _examples(path, builder):
            where = f"{path.name} {name}"
            key = f"{path.stem}/{name}" if name in keys else name  # keys often begin anew in each shard
            pictures = [member for member in members if member[0] in PICTURE_SUFFIXES]
            if not pictures:
                builder.problem(where, f"no picture (only {', '.join(member[0] for member in members)})")
                continue
            if key in keys:
                builder.problem(where, "the key stands twice in the shard; the first one counts")
                continue
            keys.add(key)
            record: dict[str, Any] = {}
            for suffix in TEXT_SUFFIXES:
                for kind, start, size in members:
                    if kind == suffix:
                        complain = partial(builder.problem, where + suffix)
                        read_sidecar(record, suffix, texts.part(number, start, size), complain)
            yield _Found(key, (number, *pictures[0][1:]), record)


def _examples(path: Path, builder: Builder) -> Iterator[tuple[str, list[Member]]]:
    names, spans, fault = _index(path)
    if fault:
        builder.problem(path.name, f"the shard is damaged, cut short or compressed: {fault}")

    def key(place: int) -> str:
        folder, _, name = names[place].rpartition("/")
        return f"{folder}/{name.split('.')[0]}" if folder else name.split(".")[0]

    for name, group in itertools.groupby(range(len(names)), key):
        # of "0001.left.jpg", as of "0001.jpg", the last extension says what the file is
        yield name, [(Path(names[at]).suffix.lower(), int(spans[at, 0]), int(spans[at, 1])) for at in group]


def _index(path: Path) -> tuple[PackedStrings, Int64[np.ndarray, "n 2"], str]:
    """Return the names of a shard's files, where each starts and its size, and a fault; kept in the user's cache."""
    stamp = hashlib.blake2b(f"1|{path.resolve()}|{file_stamp(path)}".encode(), digest_size=16).hexdigest()
    kept = cache_folder("shards") / f"{stamp}.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return PackedStrings(arrays["blob"], arrays["offsets"]), arrays["spans"], str(arrays["fault"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # cut short, as by a full disk: made anew
            pass
    names, spans, fault = _read_index(path)
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".npz", delete=False) as new:
        np.savez(new, blob=names.blob, offsets=names.offsets, spans=spans, fault=np.array(fault))
    os.replace(new.name, kept)  # noqa: PTH105  whole or not at all, also with several processes
    return names, spans, fault


def _read_index(path: Path) -> tuple[PackedStrings, Int64[np.ndarray, "n 2"], str]:
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    fault = ""
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile() and not Path(member.name).name.startswith("."):
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError(f"{member.name} reaches past its end")
                    names.append(member.name.removeprefix("./"))
                    spans.append((member.offset_data, member.size))
    except (tarfile.TarError, OSError, ValueError) as error:
        fault = str(error)
    return PackedStrings.pack(names), np.array(spans, dtype=np.int64).reshape(-1, 2), fault


def _braces(pattern: str) -> list[str]:
    """Expand `{000..099}` and `{a,b}` as a shell does."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span:
        width = len(span[1]) if span[1].startswith("0") else 0
        words = [str(number).zfill(width) for number in range(int(span[1]), int(span[2]) + 1)]
    else:
        words = match[1].split(",")
    return [one for word in words for one in _braces(pattern[: match.start()] + word + pattern[match.end() :])]
