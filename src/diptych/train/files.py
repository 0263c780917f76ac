"""Files that are either whole or not there: written aside, forced to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.saved import read_json, read_tensors

__all__ = [
    "disk_trouble",
    "is_whole",
    "read_json",
    "read_tensors",
    "sync",
    "whole_folder",
    "write_json",
    "write_tensors",
]

MANIFEST = "manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_trouble(what: str, keeps: str) -> Iterator[None]:
    """Turn a disk that takes no more into one line.

    Args:
        what: that was to be written.
        keeps: what is still there, as the end of a sentence.

    Raises:
        UserError: when the disk is full, read-only, gone or forbidden.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _code(error)
        if code is None:
            raise
        hint = "make room" if code in _FULL else "see to the disk"
        raise UserError(f"cannot write {what}: {os.strerror(code)}; {keeps}; {hint} and start again") from None


def _code(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, note: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file in one piece."""
    aside = path.with_name(f".{path.name}.part")
    try:
        plain = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(plain, aside, metadata=dict(note or {}))
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one piece."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Lend a folder to fill; it appears under its name, with a manifest, only when everything is in it.

    Args:
        path: where it shall be; nothing may be there yet, unless a folder that was cut short.
    """
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        write_json(aside / MANIFEST, {file.name: _fingerprint(file) for file in sorted(aside.iterdir())})
        sync(aside)
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_whole(path: Path) -> bool:
    """Tell whether every file of a folder's manifest is there, byte for byte."""
    try:
        manifest = read_json(path / MANIFEST)
        return all(_fingerprint(path / name) == value for name, value in manifest.items())
    except (OSError, UserError):
        return False


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
