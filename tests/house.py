"""Hold the house to its sizes: files under 300 lines, function bodies under 40, no `**kwargs`. Run by `make check`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "diptych"
FILE_LINES, FUNCTION_LINES = 300, 40


def faults(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > FILE_LINES:
        yield f"{path}: {len(text.splitlines())} lines, at most {FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        body = node.body[1:] if words else node.body
        lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        if lines > FUNCTION_LINES:
            yield f"{path}:{node.lineno}: {node.name} has a body of {lines} lines, at most {FUNCTION_LINES}"
        if node.args.kwarg is not None:
            yield f"{path}:{node.lineno}: {node.name} takes **{node.args.kwarg.arg}; name every argument"
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "hasattr":
                yield f"{path}:{call.lineno}: hasattr; ask isinstance of one of the small interfaces"


if __name__ == "__main__":
    found = [line for path in sorted(SOURCE.rglob("*.py")) for line in faults(path)]
    print("\n".join(found) if found else "house: every file and function within its size")
    sys.exit(bool(found))
