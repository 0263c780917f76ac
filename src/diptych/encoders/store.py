"""Features on disk: fp16 numbers at fixed places, written in pieces that a kill cannot spoil, read by memory map."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int64
from torch import Tensor

from diptych.core.errors import UserError

_FORMAT = 1
_BYTES = 2  # of one fp16 number
LARGEST = 65504.0  # of fp16; what is beyond is stored as this


def cache_folder(folder: str | Path | None = None) -> Path:
    """Return where features are kept: the folder given, `$DIPTYCH_CACHE/features`, or `~/.cache/diptych/features`."""
    if folder is not None:
        return Path(folder).expanduser()
    root = os.environ.get("DIPTYCH_CACHE", "")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "diptych") / "features"


class StoreFiles:
    """One folder: `summary.f16`, `tokens.f16` and `done.u8`, whose marks are written after what they stand for.

    Item i has one summary and tokens `offsets[i]` to `offsets[i + 1]`. The files have their full length from the
    start, with holes where nothing was written, so that several processes may fill them at once.

    Args:
        folder: made when it is not there.
        dim: width of a summary.
        token_dim: width of a token.
        offsets: where the tokens of each item begin, and the end of all; all zero when tokens are not kept.
        about: what the features are of, for people; told in `store.json`.

    Raises:
        UserError: when the folder cannot be written or holds something else.
    """

    def __init__(
        self, folder: Path, *, dim: int, token_dim: int, offsets: Int64[np.ndarray, " m"], about: dict[str, Any]
    ) -> None:
        self.folder, self.dim, self.token_dim, self.offsets = folder, dim, token_dim, offsets
        self.count = len(offsets) - 1
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            widths = {"dim": dim, "token_dim": token_dim}
            self._claim({"format": _FORMAT, "items": self.count, "tokens": int(offsets[-1])} | widths, about)
            for name, size in self._sizes().items():
                with (folder / name).open("ab") as file:
                    file.truncate(max(size, file.tell()))
            with (folder / "done.u8").open("ab") as file:  # without holes: a map of a hole on a full disk is fatal
                file.write(bytes(max(0, self.count + 1 - file.tell())))
            self._done = np.memmap(folder / "done.u8", dtype=np.uint8, mode="r+", shape=(self.count + 1,))

    def done(self) -> Bool[np.ndarray, " n"]:
        """Tell which items are there, whichever process wrote them."""
        there: Bool[np.ndarray, " n"] = np.asarray(self._done[: self.count]) == 1
        return there

    def write(self, items: Int64[np.ndarray, " k"], summary: Float[Tensor, "k d"], tokens: list[Tensor]) -> None:
        """Write some items, wait until they are on the disk, and mark them.

        Args:
            items: their numbers.
            summary: their summaries.
            tokens: of each, its (n, d) tokens; empty when tokens are not kept.

        Raises:
            UserError: when the disk is full.
        """
        with self._told(), (self.folder / "summary.f16").open("r+b") as file:
            for item, row in zip(items.tolist(), _half(summary), strict=True):
                file.seek(item * self.dim * _BYTES)
                file.write(row.tobytes())
            _sync(file)
        if tokens:
            with self._told(), (self.folder / "tokens.f16").open("r+b") as file:
                for item, part in zip(items.tolist(), tokens, strict=True):
                    file.seek(int(self.offsets[item]) * self.token_dim * _BYTES)
                    file.write(_half(part).tobytes())
                _sync(file)
        self._done[items] = 1
        self._done.flush()

    def need_room(self, items: Int64[np.ndarray, " k"]) -> None:
        """Check that the disk has room for some items.

        Raises:
            UserError: when it has not; the line says how much is needed.
        """
        tokens = int((self.offsets[items + 1] - self.offsets[items]).sum())
        needed = (tokens * self.token_dim + len(items) * self.dim) * _BYTES
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise self._full(f"{needed / 1e9:.2f} GB more are needed and {free / 1e9:.2f} GB are free")

    def read(self, *, memory: int) -> tuple[Float16[Tensor, "n d"], Float16[Tensor, "m w"]]:
        """Return all summaries and all tokens: in memory where both fit into so many bytes and most are there.

        Else they are mapped, which is as fast as long as the system keeps the file in its cache.
        """
        parts = [
            self._map("summary.f16", self.count, self.dim),
            self._map("tokens.f16", int(self.offsets[-1]), self.token_dim),
        ]
        if sum(part.numel() for part in parts) * _BYTES <= memory and self.done().sum() > self.count / 2:
            parts = [part.clone() for part in parts]
        return parts[0], parts[1]

    def _map(self, name: str, rows: int, dim: int) -> Tensor:
        if rows == 0:
            return torch.empty(0, dim, dtype=torch.float16)
        path = str(self.folder / name)
        return torch.from_file(path, shared=False, size=rows * dim, dtype=torch.float16).view(rows, dim)

    def _sizes(self) -> dict[str, int]:
        summary, token = self.dim * _BYTES, self.token_dim * _BYTES
        return {"summary.f16": self.count * summary, "tokens.f16": int(self.offsets[-1]) * token}

    def _claim(self, header: dict[str, Any], about: dict[str, Any]) -> None:
        """Say whose features these are, or see that they are the same ones."""
        path = self.folder / "store.json"
        if path.is_file():
            said = json.loads(path.read_text("utf-8"))
            if any(said.get(name) != value for name, value in header.items()):
                raise UserError(f"{self.folder} holds features of another kind: remove that folder")
            return
        part = self.folder / f"store.json.{os.getpid()}"
        part.write_text(json.dumps({**header, **about}, indent=1, ensure_ascii=False) + "\n", "utf-8")
        part.replace(path)

    def _full(self, how: str) -> UserError:
        return UserError(
            f"no room for features in {self.folder}: {how}; free some, keep only summaries, or set DIPTYCH_CACHE to a "
            "folder on another disk"
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the disk refuses into one line."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                whole = sum(self._sizes().values())
                raise self._full(f"the disk is full, and all of it takes {whole / 1e9:.2f} GB") from None
            raise UserError(
                f"features cannot be kept in {self.folder}: {error.strerror}; set DIPTYCH_CACHE to a folder of yours"
            ) from None


def _half(values: Float[Tensor, "n d"]) -> Float16[np.ndarray, "n d"]:
    """Round to fp16, which has no place for numbers beyond 65504."""
    half: Float16[np.ndarray, "n d"] = values.float().clamp(-LARGEST, LARGEST).half().cpu().contiguous().numpy()
    return half


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
