"""What the tests run in processes of their own: `python -m tests.train.child WHAT FOLDER [JSON]`."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(what: str, folder: Path, settings: dict | None = None, *, world: int = 1) -> list[subprocess.Popen]:
    """Start one process, or as many as torchrun would."""
    base = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.train.child", what, str(folder), json.dumps(settings or {})]
    started = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(world):
        joined = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
        }
        env = base | ({name: str(value) for name, value in joined.items()} if world > 1 else {})
        started.append(
            subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return started


def finish(started: list[subprocess.Popen], *, seconds: float = 120) -> list[tuple[int, str]]:
    """Wait for them; return how each ended and what it printed."""
    try:
        return [(process.wait(seconds), process.stdout.read()) for process in started]
    finally:
        for process in started:
            process.kill()
            process.stdout.close()


def run(what: str, folder: Path, settings: dict | None = None, *, world: int = 1) -> list[tuple[int, str]]:
    return finish(start(what, folder, settings, world=world))


def _train(folder: Path, settings: dict) -> None:
    """Train once, or several times one after another; the status is that of the last."""
    from diptych.core.errors import UserError
    from diptych.train.distributed import processes

    code = 0
    with processes("cpu"):
        for given in settings.pop("runs", [settings]):
            try:
                _train_once(folder / given.pop("out", ""), given)
                code = 0
            except UserError as error:
                print("error:", error, flush=True)
                code = 2
    sys.exit(code)


def _train_once(folder: Path, settings: dict) -> None:
    import torch
    from safetensors.torch import load_file

    from diptych.core.runtime import rank, seed_everything
    from diptych.train.config import TrainConfig
    from diptych.train.trainer import train
    from tests.train import toys

    model_settings, data = settings.pop("model", {}), settings.pop("task", {})
    limit, resume = settings.pop("file_limit", -1), settings.pop("resume", False)
    seed_everything(0)
    model = getattr(toys, settings.pop("kind", "Twins"))(**model_settings)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank() == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        task, config = toys.task(**data), TrainConfig(**settings)
        result = train(model, task, config, out=folder, record=toys.RECORD, command="diptych go", resume=resume)
        print("result", json.dumps(result.record()), flush=True)
        if rank() == 0:  # alone: the model is whole again
            weights = load_file(folder / "model.safetensors")
            same = all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
            print("kept weights", same, model.embed(next(toys.Pairs().epoch(0)))[0].shape, model.training, flush=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _pairs(folder: Path, settings: dict) -> None:
    """Train a small system on pictures and captions as the command line does, perhaps up to a kill -9."""
    from diptych.data.sources import open_data
    from diptych.train.distributed import processes
    from diptych.train.experiment import prepare, run
    from diptych.train.plan import make_plan
    from diptych.train.step import Stepper

    data, kill_at = settings.pop("data"), settings.pop("kill_at", 0)
    given, step = [0], Stepper.step

    def counted(stepper, batch, lr):
        given[0] += 1
        if given[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(stepper, batch, lr)

    Stepper.step = counted
    plan = make_plan(settings.pop("system", "clip"), settings=settings)
    with processes("cpu"):
        experiment = prepare(plan, open_data(data), out=folder, named=data)
        run(experiment, out=folder)


def _gradients(folder: Path, settings: dict) -> None:
    """Write the gradient of one global batch for each kind of system; the parent compares."""
    from safetensors.torch import save_file

    from diptych.core.runtime import rank
    from diptych.train.distributed import processes
    from tests.train.proofs import proofs

    with processes("cpu"):
        found = proofs()
        if rank() == 0:
            save_file(found, folder / "found.safetensors")


def main() -> None:
    import torch

    torch.set_num_threads(1)
    what, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    {"train": _train, "gradients": _gradients, "pairs": _pairs}[what](folder, settings)


if __name__ == "__main__":
    main()
