"""Log: the curves of a run, one JSON object a line, and TensorBoard where it is wanted."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from diptych.core.errors import UserError
from diptych.train.files import disk_trouble

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"


class Log:
    """Writes what happened, at once, so that nothing is lost with the process.

    Every line has `step`, `epoch` (a fraction of the data read) and `time` (seconds of training). Lines about
    learning also have `loss`, `loss/PART`, `lr`, `norm` (of the gradient) and `rate` (examples a second); lines about
    scores have `valid/SCORE`. A phase other than "main" puts its name before: `generator/loss`.

    Args:
        out: the run folder.
        kinds: "jsonl", "tensorboard".
        length: bytes of the log that stay when a run goes on; what a killed process wrote after them is written again.
        step: of that moment.

    Raises:
        UserError: when TensorBoard is wanted but not installed.
    """

    def __init__(self, out: Path, kinds: tuple[str, ...], *, length: int = 0, step: int = 0) -> None:
        self._path = out / METRICS
        self._stream: TextIO | None = None
        self._board: SummaryWriter | None = None
        if "jsonl" in kinds:
            self._path.touch()
            with self._path.open("r+b") as old:
                old.truncate(min(length, self._path.stat().st_size))
            self._stream = self._path.open("a", encoding="utf-8")
        if "tensorboard" in kinds:
            if importlib.util.find_spec("tensorboard") is None:
                raise UserError('log=tensorboard needs TensorBoard: pip install "diptych[log]"')
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float | str]) -> None:
        """Write one line, and force it out of the process.

        Raises:
            UserError: when the disk is full.
        """
        with disk_trouble(str(self._path), "what was saved before stays"):
            self._write(step, values)

    def _write(self, step: int, values: dict[str, float | str]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps({"step": step, **values}) + "\n")
            self._stream.flush()
        if self._board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def __len__(self) -> int:
        """Count the bytes written."""
        return 0 if self._stream is None else os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        """Let go of the files."""
        if self._stream is not None:
            self._stream.close()
        if self._board is not None:
            self._board.close()
