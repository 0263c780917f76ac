"""State: everything a run needs to go on as if it had never stopped; tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.core.runtime import gather, rank, world
from diptych.train import rng
from diptych.train.checkpoint import fit, named_weights
from diptych.train.files import is_whole, read_json, read_tensors, whole_folder, write_json, write_tensors
from diptych.train.replica import put, whole
from diptych.train.step import Stepper

RESUME = "resume"


@dataclass(slots=True)
class Place:
    """Where a run stands, in plain values.

    Args:
        stage: number of the stage.
        epoch: of the data, counted over all stages.
        batch: the next one in that epoch.
        step: optimizer steps taken, over all stages.
        stage_step: those of this stage.
        seconds: of training so far, without pauses.
        log_bytes: length of the log.
        sums: of what the next line of the log will average, and how many steps they are of.
        warned: whether there was a warning that is not over.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    stage_step: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    warned: bool = False


def latest(out: Path) -> Path | None:
    """Find the newest state that is whole.

    Raises:
        UserError: when there are states, but all of them are cut short.
    """
    folders = sorted((out / RESUME).glob("[0-9]*"), reverse=True)
    for folder in folders:
        if is_whole(folder):
            return folder
    if folders:
        raise UserError(f"the state in {out / RESUME} is cut short or changed; delete {out} or give another --out")
    return None


def collect_state(
    out: Path, place: Place, kept: Mapping[str, Any], stepper: Stepper, device: torch.device
) -> Callable[[], None]:
    """Collect the state of a run from every process, and return what writes it.

    Every process must collect; only the first one shall write. The state before stays until this one is whole.
    """
    ema = stepper.ema
    tensors = {
        "weights": {name: whole(value).cpu() for name, value in named_weights(stepper.model).items()},
        "optimizer": {name: value.cpu() for name, value in _flat(stepper).items()},
        "average": {} if ema is None else {name: whole(value).cpu() for name, value in ema.average.items()},
        "random": {name: _of_all(value, device) for name, value in rng.capture(device).items()},
    }
    steps = 0 if ema is None else ema.steps
    plain = {"place": asdict(place), "kept": dict(kept), "ema_steps": steps, "world": world()}

    def write() -> None:
        target = out / RESUME / f"{place.step:09d}"
        with whole_folder(target) as folder:
            for name, content in tensors.items():
                write_tensors(folder / f"{name}.safetensors", content)
            write_json(folder / "state.json", plain)
        for older in target.parent.iterdir():
            if older != target:
                shutil.rmtree(older, ignore_errors=True)

    return write


def _of_all(value: Tensor, device: torch.device) -> Tensor:
    """Stack a tensor of every process, on the host."""
    return value[None] if world() == 1 else gather(value[None].to(device)).cpu()


def read_place(folder: Path) -> tuple[Place, dict[str, Any]]:
    """Read where a run stood, and what was kept beside it.

    Raises:
        UserError: when another number of processes had written it.
    """
    state = read_json(folder / "state.json")
    if state["world"] != world():
        raise UserError(
            f"this run was started with {state['world']} processes and has {world()} now; "
            f"go on with torchrun --nproc-per-node {state['world']}"
        )
    return Place(**state["place"]), state["kept"]


def load_weights_of(folder: Path, model: Model) -> None:
    """Give the model its weights of that moment; to be done before it is copied or sharded."""
    weights = read_tensors(folder / "weights.safetensors")
    fit(model, weights, str(folder))
    for name, value in named_weights(model).items():
        put(value, weights[name])


def load_rest(folder: Path, stepper: Stepper, device: torch.device) -> None:
    """Give the optimizers, the average and this process's random numbers what they were."""
    moments = read_tensors(folder / "optimizer.safetensors")
    for start, parameter, optimizer in _members(stepper):
        for key in [key for key in moments if key.startswith(start)]:
            optimizer.state[parameter][key.removeprefix(start)] = _placed(moments[key], key, parameter, optimizer)
    if stepper.ema is not None:
        average = read_tensors(folder / "average.safetensors")
        stepper.ema.steps = read_json(folder / "state.json")["ema_steps"]
        for name, value in stepper.ema.average.items():
            put(value, average[name])
    numbers = read_tensors(folder / "random.safetensors")
    rng.restore({name: value[rank()] for name, value in numbers.items()}, device)


def _placed(value: Tensor, key: str, parameter: nn.Parameter, optimizer: AdamW) -> Tensor:
    """Bring a moment to where AdamW keeps it: beside its parameter, but a plain step counter on the host."""
    if key.endswith("/step"):
        fused = any(group["fused"] for group in optimizer.param_groups)
        return value.to(parameter.device) if fused else value
    live = torch.zeros_like(parameter).detach()
    put(live, value)
    return live


def _members(stepper: Stepper) -> Iterator[tuple[str, nn.Parameter, AdamW]]:
    """Go through what each optimizer moves, with the start of its names in a file: `phase/parameter/`."""
    names = {parameter: name for name, parameter in stepper.model.named_parameters()}
    for phase, optimizer in stepper.optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield f"{phase}/{names[parameter]}/", parameter, optimizer


def _flat(stepper: Stepper) -> dict[str, Tensor]:
    return {
        start + key: whole(value)
        for start, parameter, optimizer in _members(stepper)
        for key, value in optimizer.state[parameter].items()
    }
