"""The verb `models`: which systems there are."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path


def models() -> None:
    """List the systems that can be trained, each with what it is and where it lives.

    Example: `diptych models`
    """
    from rich.console import Console
    from rich.table import Table

    from diptych.models import names

    table = Table("system", "what it is", "module", box=None, header_style="bold")
    for name, module in names().items():
        spec = find_spec(module)
        text = Path(spec.origin).read_text() if spec is not None and spec.origin is not None else ""
        summary = (ast.get_docstring(ast.parse(text)) or "").splitlines() or [""]
        table.add_row(name, summary[0], module)
    Console().print(table)
