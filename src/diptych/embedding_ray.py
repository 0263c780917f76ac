"""Embedding on many machines: the shards of `diptych.embedding` as a Ray Data pipeline.

Every machine must reach the data, the run and the output folder by the same paths (a network file system, say).
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych.core.errors import UserError
from diptych.embedding import Work


class Embedder:
    """An actor: opens the run and the data once and computes the shards that it is given."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any], work: Work, out: str) -> dict[str, Any]:
        """Compute a batch of shards; return how many pictures they are of."""
        self._work = work if self._work is None else self._work  # the first has by now opened what it needs
        return {"pictures": [self._work.compute(Path(out), int(number)) for number in batch["item"]]}


def compute_with_ray(work: Work, out: Path, missing: list[int], passed: Callable[[int], object]) -> None:
    """Compute shards on a Ray cluster: the one of RAY_ADDRESS, the one already connected to, or this machine.

    Args:
        work: what to embed.
        out: the folder of the vectors, the same on all machines.
        missing: the shards.
        passed: told of the pictures dealt with.

    Raises:
        UserError: when Ray is not installed, or a machine failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray: Any = importlib.import_module("ray")
        data: Any = importlib.import_module("ray.data")
    except ModuleNotFoundError:
        raise UserError("--engine ray needs Ray: pip install 'diptych[ray]'") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells its plans
    gpus = 1 if work.device.startswith("cuda") else 0
    room = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1))
    # without what is open here, and by paths that hold wherever a worker's current folder is
    plain = replace(work, run=_whole(work.run), data=_whole(work.data))
    shards = data.from_items(missing, override_num_blocks=len(missing)).map_batches(
        Embedder,
        fn_kwargs={"work": plain, "out": str(out.resolve())},
        batch_size=1,
        compute=data.ActorPoolStrategy(min_size=1, max_size=max(1, min(room, len(missing)))),
        num_cpus=1,
        num_gpus=gpus,
    )
    try:
        for done in shards.iter_rows():
            passed(int(done["pictures"]))
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise UserError(
            f"a machine of the Ray cluster failed: {last}; what is done is kept, type the command again to go on"
        ) from error


def _whole(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path
