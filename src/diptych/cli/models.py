"""The verb `models`: which systems there are."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path


def models() -> None:
    """List the systems that can be trained, by family, each with what it is.

    Example: `diptych models`
    """
    from rich.console import Console
    from rich.table import Table

    from diptych.models import names

    table = Table("family", "system", "what it is", box=None, header_style="bold", pad_edge=False)
    table.columns[1].no_wrap = True
    by_family = sorted((module.split(".")[-2], name, module) for name, module in names().items())
    for family, systems in groupby(by_family, key=lambda row: row[0]):
        for row, (_, name, module) in enumerate(systems):
            table.add_row(family if row == 0 else "", name, _summary(module))
        table.add_section()
    Console().print(table)


def _summary(module: str) -> str:
    """Return the first sentence of a module's docstring, which is not imported for it, less its own name."""
    spec = find_spec(module)
    text = Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin is not None else ""
    line = ((ast.get_docstring(ast.parse(text)) or "").splitlines() or [""])[0]
    return line.partition(": ")[2] or line
