"""Progress: a bar with rate, time left, loss and score on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column


class Display(ABC):
    """Shows how far a training is."""

    @abstractmethod
    def begin(self, what: str, done: int, total: int) -> None:
        """Start to show something of so many steps, some of them done."""

    @abstractmethod
    def step(self, done: int, *, loss: float, rate: float) -> None:
        """Show a step; the rate is in examples a second."""

    @abstractmethod
    def score(self, text: str) -> None:
        """Show the newest score."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Tell something that stays on the screen."""

    @abstractmethod
    def end(self) -> None:
        """Leave the screen as it should stay."""


class Silent(Display):
    """Shows nothing: for every process but the first, and for tests."""

    def begin(self, what: str, done: int, total: int) -> None:
        """Show nothing."""

    def step(self, done: int, *, loss: float, rate: float) -> None:
        """Show nothing."""

    def score(self, text: str) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


def _one_line() -> Column:
    return Column(no_wrap=True, overflow="ellipsis")


class Bar(Display):
    """A bar that moves."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", table_column=_one_line()),
            BarColumn(bar_width=8),
            MofNCompleteColumn(table_column=_one_line()),
            TextColumn("{task.fields[rate]}", table_column=_one_line()),
            TimeRemainingColumn(table_column=_one_line()),
            TextColumn("{task.fields[loss]}  {task.fields[score]}", markup=False, table_column=_one_line()),
            console=console,
        )
        self._task: TaskID | None = None

    def begin(self, what: str, done: int, total: int) -> None:
        """Start a bar, in place of the one before."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, completed=done, rate="", loss="", score="")
        self._bar.start()

    def step(self, done: int, *, loss: float, rate: float) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, loss=f"loss {loss:.4f}", rate=f"{rate:,.0f}/s")

    def score(self, text: str) -> None:
        """Put the score behind the bar."""
        if self._task is not None:
            self._bar.update(self._task, score=text)

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Stop the bar where it is."""
        self._bar.stop()


class Lines(Display):
    """A line now and then, for files and pipes.

    Args:
        console: where to.
        every: seconds between two lines about steps.
    """

    def __init__(self, console: Console, *, every: float = 10.0) -> None:
        self._console = console
        self._every = every
        self._what, self._total = "", 0
        self._start = self._last = 0.0
        self._from = 0

    def begin(self, what: str, done: int, total: int) -> None:
        """Note what is shown."""
        self._what, self._total, self._from = what, total, done
        self._start = self._last = time.monotonic()

    def step(self, done: int, *, loss: float, rate: float) -> None:
        """Print, unless the last line is young."""
        now = time.monotonic()
        if now - self._last < self._every and done < self._total:
            return
        self._last = now
        left = (now - self._start) / max(1, done - self._from) * (self._total - done)
        self.say(
            f"{self._what} {done}/{self._total}  {rate:,.0f} examples/s  "
            f"{int(left) // 60}:{int(left) % 60:02d} left  loss {loss:.4f}"
        )

    def score(self, text: str) -> None:
        """Print the score."""
        self.say(text)

    def say(self, text: str) -> None:
        """Print."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Nothing is left open."""


def choose(*, quiet: bool) -> Display:
    """Return the display that suits this process and its standard error."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)
