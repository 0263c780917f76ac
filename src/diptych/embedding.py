"""Embedding: the vectors of a whole source as files, shard by shard, so that a stop loses one shard and many can work.

A shard is a fixed range of the pictures and depends on nothing else: whoever computes it, here or in another process or
machine, writes the same file. When all are there they are joined.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.lib.format import open_memmap
from safetensors import safe_open
from safetensors.numpy import save_file

from diptych.core.errors import UserError
from diptych.data.source import Problem, Source
from diptych.data.sources import open_data
from diptych.predictor import Predictor, load

SHARD = 1024
"""Pictures of a shard; also what a stop can lose."""

_JOB, _SHARDS = "job.json", "shards"


@dataclass(frozen=True)
class Work:
    """What is to be embedded by what; plain values, so that it can be sent to another machine.

    Args:
        run: folder of the model.
        data: of the pictures.
        columns: options of `open_data`.
        split: which of them.
        device: where to compute.
        shard: pictures of a shard.
    """

    run: str
    data: str
    columns: Mapping[str, Any]
    split: str = "all"
    device: str = "auto"
    shard: int = SHARD

    @cached_property
    def source(self) -> Source:
        """Open the data."""
        return open_data(self.data, **self.columns)

    @cached_property
    def rows(self) -> Int64[np.ndarray, " n"]:
        """Choose the pictures."""
        return self.source.rows(self.split)

    @cached_property
    def predictor(self) -> Predictor:
        """Load the model."""
        return load(self.run, device=self.device)

    def __len__(self) -> int:
        """Count the shards."""
        return -(-len(self.rows) // self.shard)

    def rows_of(self, number: int) -> Int64[np.ndarray, " k"]:
        """Return the pictures of a shard."""
        return self.rows[number * self.shard : (number + 1) * self.shard]

    def begin(self, out: Path) -> list[int]:
        """Make the folder, or find what an earlier start has left in it; return the shards that are missing.

        Raises:
            UserError: when the folder holds the vectors of something else.
        """
        said = {"model": self.predictor.identity, "data": self.data, "split": self.split, "pictures": len(self.rows)}
        said |= {"columns": {name: str(value) for name, value in self.columns.items()}, "shard": self.shard}
        try:
            (out / _SHARDS).mkdir(parents=True, exist_ok=True)
            if not (out / _JOB).is_file():
                (out / _JOB).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}; give --out another folder") from None
        before = json.loads((out / _JOB).read_text(encoding="utf-8"))
        if before != said:
            other = ", ".join(name for name in said if before.get(name) != said[name])
            raise UserError(f"{out} holds the vectors of something else (another {other}): give --out a new folder")
        return [number for number in range(len(self)) if not _file(out, number).is_file()]

    def compute(self, out: Path, number: int, *, passed: Callable[[int], object] = int) -> int:
        """Embed one shard and write it whole or not at all; return how many pictures it is of.

        Args:
            out: the folder of the vectors.
            number: of the shard.
            passed: told of pictures as they are dealt with.
        """
        rows = self.rows_of(number)
        vectors, keys = [], []
        captions: list[str] = []
        skipped: list[Problem] = []
        workers = max(2, os.cpu_count() or 2)
        for piece, some in self.predictor.embed_rows(self.source, rows, skipped=skipped, workers=workers):
            vectors.append(some)
            passed(len(piece))
            for row in map(self.source.row, piece.tolist()):
                keys.append({"key": row.key, "captions": len(row.captions), "split": row.split})
                captions += row.captions
        dim = self.predictor.embed_text("a").shape[1]
        parts = {"images": np.concatenate([np.empty((0, dim), np.float32), *vectors])}
        parts["texts"] = self.predictor.embed_text(captions) if captions else np.empty((0, dim), np.float32)
        notes = {"keys": json.dumps(keys), "skipped": json.dumps([asdict(one) for one in skipped])}
        half = _file(out, number).with_suffix(f".{os.getpid()}")
        save_file(parts, half, metadata=notes)
        half.replace(_file(out, number))
        passed(len(rows) - len(keys))
        return len(rows)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of the pictures."""

    pictures: int
    captions: int
    skipped: list[Problem]


def compute_here(work: Work, out: Path, missing: list[int], passed: Callable[[int], object]) -> None:
    """Compute shards one after another with all cores; `passed` is told of the pictures dealt with."""
    for number in missing:
        work.compute(out, number, passed=passed)


def join(work: Work, out: Path) -> Embedded:
    """Put the shards together to images.npy, texts.npy, keys.jsonl and skipped.jsonl, and remove them.

    Raises:
        UserError: when no picture could be read.
    """
    if (out / _SHARDS).is_dir() and not (out / "keys.jsonl").is_file():
        shards = [_file(out, number) for number in range(len(work))]
        for name in ("images", "texts"):
            _join_vectors(shards, name, out / f"{name}.npy")
        for name in ("skipped", "keys"):  # the keys last: they say that all is there
            lines = (json.dumps(one, ensure_ascii=False) + "\n" for file in shards for one in _notes(file, name))
            half = out / f"{name}.part"
            with half.open("w", encoding="utf-8") as file:
                file.writelines(lines)
            half.replace(out / f"{name}.jsonl")
    shutil.rmtree(out / _SHARDS, ignore_errors=True)
    keys = [json.loads(line) for line in _lines(out / "keys.jsonl")]
    skipped = [Problem(**json.loads(line)) for line in _lines(out / "skipped.jsonl")]
    return Embedded(len(keys), sum(key["captions"] for key in keys), skipped)


def finished(out: Path) -> bool:
    """Say whether all vectors of a folder are there and joined."""
    return (out / "keys.jsonl").is_file()


def _join_vectors(shards: list[Path], name: str, file: Path) -> None:
    shapes = []
    for shard in shards:
        with safe_open(shard, framework="np") as opened:
            shapes.append(tuple(opened.get_slice(name).get_shape()))
    count = sum(rows for rows, _ in shapes)
    if count == 0:
        if name == "images":
            raise UserError("none of the pictures could be read: look at them with `diptych check`")
        return
    joined, start = open_memmap(file, mode="w+", dtype=np.float32, shape=(count, shapes[0][1])), 0
    for shard, (rows, _) in zip(shards, shapes, strict=True):
        with safe_open(shard, framework="np") as opened:
            joined[start : start + rows] = opened.get_tensor(name)
        start += rows
    joined.flush()


def _notes(shard: Path, name: str) -> list[Any]:
    with safe_open(shard, framework="np") as opened:
        found: list[Any] = json.loads(opened.metadata()[name])
        return found


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as opened:
        yield from opened


def _file(out: Path, number: int) -> Path:
    return out / _SHARDS / f"{number:06}.safetensors"
