"""How many pictures and rows of the built-in data are made in a second.

    python -m benchmarks.scenes [--json PATH]

One core is measured in processor time of one thread, which a busy machine does not change much; two cores in wall time
of two processes and of two threads. At 64 px the target is 1,000 pictures a second a core and 2,000 on two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from diptych.data.scene_graph import STYLES
from diptych.data.scenes import Scenes

Work = Callable[[int], object]


def per_cpu_second(work: Work, count: int, *, rounds: int = 3) -> float:
    """Return how often `work` is done in a second of processor time, the median of some rounds."""
    rates = []
    for k in range(rounds):
        start = time.process_time()
        for index in range(k * count, (k + 1) * count):
            work(index)
        rates.append(count / (time.process_time() - start))
    return sorted(rates)[rounds // 2]


def draw(options: tuple[str, int, int, int]) -> int:
    """Draw pictures `first` to `last` of a style and size, in a process or thread of its own."""
    style, size, first, last = options
    source = Scenes(styles=(style,), size=size, distinct=False)
    for index in range(first, last):
        source.picture(index)
    return last - first


def on_two(pool: Executor, style: str, size: int, count: int) -> float:
    """Return pictures per second of wall time on two workers that are already running."""
    list(pool.map(draw, [(style, size, 0, 20)] * 2))
    start = time.perf_counter()
    done = sum(pool.map(draw, [(style, size, k * count, (k + 1) * count) for k in range(2)]))
    return done / (time.perf_counter() - start)


def measure(count: int) -> dict[str, dict[str, float]]:
    """Time every style at 64 px and the default style at other sizes."""
    results: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(2) as processes, ThreadPoolExecutor(2) as threads:
        cases = [(style, 64) for style in STYLES] + [("flat", size) for size in (32, 128, 224)]
        for style, size in cases:
            source = Scenes(styles=(style,), size=size, distinct=False)
            results[f"{style} {size} px"] = {
                "one core": per_cpu_second(source.picture, count),
                "two processes": on_two(processes, style, size, count),
                "two threads": on_two(threads, style, size, count),
            }
    for language in ("en", "zh", "both"):
        source = Scenes(language=language, distinct=False)
        results[f"rows {language}"] = {"one core": per_cpu_second(source.row, count)}
    return results


def main() -> None:
    """Print the table, and write it as JSON where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file as well")
    parser.add_argument("--count", type=int, default=1000, help="pictures in each round")
    arguments = parser.parse_args()
    results = measure(arguments.count)
    columns = ("one core", "two processes", "two threads")
    print(f"{'a second':16}" + "".join(f"{column:>16}" for column in columns))
    for name, rates in results.items():
        print(f"{name:16}" + "".join(f"{rates[column]:16,.0f}" if column in rates else "" for column in columns))
    print("one core: per second of processor time of one thread; the others: per second of wall time")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
