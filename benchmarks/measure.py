"""How everything here is timed: CPU time of one thread, contestants in turns, medians, beside the machine's floor.

CPU time stands a busy machine far better than wall time does, and turns (A B A B) share what drifts. Results must be
shown equal before they are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

_CONSOLE = Console(width=None if sys.stdout.isatty() else 160)


NO_HALF = "bf16 is left out: this processor has no instructions for it, and float32 is faster"


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU seconds of one contestant, one number per turn."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle one."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Return the distance from least to most, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def arguments(doc: str | None, *, more: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """Read `--json PATH`, `--repeats N` and what a benchmark adds; go on with one thread."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contestant, at least 5 for a claim")
    if more is not None:
        more(parser)
    torch.set_num_threads(1)
    return parser.parse_args()


def interleave(contestants: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, Timing]:
    """Time contestants in turns, after one turn that does not count.

    Args:
        contestants: what to call, by name.
        repeats: how many turns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            if turn > 0:
                seconds[name].append(time.process_time() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def gemm_rate(size: int = 1024, *, dtype: torch.dtype = torch.float32, repeats: int = 15) -> float:
    """Measure the best rate of a matrix product of torch, in floating point operations per CPU second."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    timing = interleave({"mm": lambda: torch.mm(left, right, out=out)}, repeats=repeats)["mm"]
    return 2 * size**3 / min(timing.seconds)


@cache
def half_pays() -> bool:
    """Tell whether this processor multiplies bfloat16 at least as fast as float32.

    Where it has no instructions for it, a product takes about a hundred times as long, and a benchmark would hang.
    """
    return gemm_rate(256, dtype=torch.bfloat16, repeats=3) >= gemm_rate(256, repeats=3)


def machine() -> dict[str, str | int | float]:
    """Say what the numbers were measured on; `steal` is the share of time taken away since boot, where it is known."""
    facts: dict[str, str | int | float] = {
        "cpu_vendor": _cpuinfo("vendor_id"),
        "cpu_model": _cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    steal = _steal()
    return facts if steal is None else facts | {"steal": steal}


def peak_memory(statement: str, *, setup: str) -> float:
    """Return by how many MiB a statement lifts the peak memory of a fresh process above what its setup left there."""
    code = f"""
import benchmarks, torch
from benchmarks.measure import forget_peak, resident
torch.set_num_threads(1)
{setup}
before = forget_peak()
{statement}
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def resident() -> float:
    """Return the peak memory of this process since `forget_peak`, in MiB."""
    file = Path("/proc/self/status")
    if not file.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    # not ru_maxrss: on Linux a child starts with its parent's
    line = next(line for line in file.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> float:
    """Take the memory of this process in use now for its peak, where the system can (Linux); return the peak in MiB."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")
    return resident()


def report(title: str, rows: list[dict[str, Any]], *, notes: list[str], path: Path | None) -> None:
    """Print a table and the machine, and write both to a file when asked.

    Args:
        title: heading of the table.
        rows: one mapping per line, all with the same names; numbers are shown with three digits.
        notes: lines that stand below the table.
        path: where the same goes as JSON.
    """
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    _CONSOLE.print(table)
    facts = machine()
    for line in (*notes, ", ".join(f"{name} {value}" for name, value in facts.items())):
        _CONSOLE.print(line, highlight=False, soft_wrap=True)
    if path is not None:
        path.write_text(json.dumps({"title": title, "rows": rows, "notes": notes, "machine": facts}, indent=2))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _cpuinfo(name: str) -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _steal() -> float | None:
    file = Path("/proc/stat")
    if not file.exists():
        return None
    ticks = [int(value) for value in file.read_text().split("\n", 1)[0].split()[1:9]]
    return round(ticks[7] / sum(ticks), 4)
