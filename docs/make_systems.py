"""Write `docs/systems.md` from the systems themselves: what each is, and its settings. Run by `make docs`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from diptych import models, tasks
from diptych.core.config import Config
from diptych.encoders.towers import TowerConfig
from diptych.train.config import TrainConfig

PAGE = Path(__file__).parent / "systems.md"


def settings(kind: type[Config], *, without: type[Config] = Config) -> Iterator[str]:
    """Yield the rows of a table of settings."""
    yield "| setting | default | meaning |"
    yield "| --- | --- | --- |"
    for name, field in kind.model_fields.items():
        if name not in without.model_fields:
            default = f"{field.default:.4g}" if isinstance(field.default, float) else field.default
            yield f"| `{name}` | `{default}` | {field.description or ''} |"


def page() -> str:
    """Return the whole page."""
    lines = [
        "# Systems",
        "",
        "Made by `make docs` from the source. `diptych train SYSTEM DATA --out RUN --set NAME=VALUE` takes these.",
        "",
    ]
    for name in models.names():
        module = models.load(name)
        lines += [f"## {name}", "", (module.__doc__ or "").strip(), "", f"Learns from: `{module.Config.learns}`.", ""]
        without = TowerConfig if issubclass(module.Config, TowerConfig) else Config
        lines += [*settings(module.Config, without=without), ""]
    lines += ["## Towers", "", (TowerConfig.__doc__ or "").strip().replace("\n    ", "\n"), ""]
    lines += [*settings(TowerConfig), ""]
    lines += ["## Data", ""]
    for name in tasks.names():
        kind = importlib.import_module(f"diptych.tasks.{name}")
        lines += [f"### {name}", "", (kind.__doc__ or "").strip(), "", *settings(kind.Settings), ""]
    lines += ["## Training", "", *settings(TrainConfig), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
