"""What to learn from which columns, and how it is judged; one module a kind of task, found by its name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from diptych.core.batch import DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError, unknown
from diptych.core.model import Model
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.tasks.data import TaskData


@runtime_checkable
class Kind(Protocol):
    """What the module of a kind of task defines."""

    Settings: type[Config]

    def facts(self, source: Source, config: Any, settings: Any) -> tuple[Tokenizer, DataSpec]:
        """Return the tokenizer and the facts about the data that a model is built for."""

    def join(
        self,
        source: Source,
        model: Model,
        tokenizer: Tokenizer,
        spec: DataSpec,
        settings: Any,
        *,
        split: str = "all",
        seed: int = 0,
        device: str = "auto",
    ) -> TaskData:
        """Join a source to a model; `split` says which rows will be used."""


def names() -> Sequence[str]:
    """Return the kinds of tasks: the modules here that define `Settings`, `facts` and `join`."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if "\ndef join(" in file.read_text())


def load(name: str) -> Kind:
    """Import a kind of task by its name, or a user's own by its dotted module path.

    Raises:
        UserError: when there is no such kind.
    """
    if not name:
        raise UserError(f"this system does not say what it learns: its Config needs learns = one of {list(names())}")
    if "." not in name and name not in names():
        raise unknown("kind of task", name, names())
    return cast("Kind", importlib.import_module(name if "." in name else f"{__name__}.{name}"))
