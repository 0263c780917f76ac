"""Interrupt: the first Ctrl-C or SIGTERM asks to stop after the step, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

_HEARD = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Listens while it is entered, in the main thread; elsewhere it hears nothing.

    torchrun passes on the signal that its processes have had already, so what comes within two seconds under it
    counts once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {heard: signal.signal(heard, self._hear) for heard in _HEARD}
        return self

    def __exit__(self, *_: object) -> None:
        for heard, before in self._before.items():
            signal.signal(heard, before)

    def _hear(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        echo = "TORCHELASTIC_RUN_ID" in os.environ and now - self._when < 2
        if not self.asked:
            self.asked, self._when = True, now
        elif not echo:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
