"""The random numbers of this process, taken down as tensors and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from diptych.core.runtime import seed_everything


@dataclass(frozen=True, slots=True)
class TorchState:
    """The generators a model draws from: torch's own and that of its device."""

    cpu: UInt8[Tensor, " n"]
    device: UInt8[Tensor, " m"]

    @classmethod
    def now(cls, device: torch.device) -> TorchState:
        """Take down the generators as they stand."""
        own = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)
        return cls(torch.get_rng_state(), own)

    def restore(self, device: torch.device) -> None:
        """Put the generators back."""
        torch.set_rng_state(self.cpu)
        if device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)


def capture(device: torch.device) -> dict[str, Tensor]:
    """Take down torch's, NumPy's and Python's generators."""
    torch_state = TorchState.now(device)
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, second = random.getstate()
    spare: Float[Tensor, " 3"] = torch.tensor([gauss, second is not None, second or 0.0], dtype=torch.float64)
    python: Int[Tensor, " w"] = torch.tensor([version, *words])
    return {
        "torch": torch_state.cpu,
        "device": torch_state.device,
        "numpy": torch.tensor([*np.asarray(keys).tolist(), position, has_gauss]),
        "python": python,
        "spare": spare,
    }


def restore(state: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `capture` took down."""
    # torch reads a state from the start of its memory, whatever view of it is given: hence the copies
    TorchState(state["torch"].cpu().clone(), state["device"].cpu().clone()).restore(device)
    gauss, has_second, second = state["spare"].tolist()
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, *words = state["python"].tolist()
    random.setstate((version, tuple(words), second if has_second else None))


@contextmanager
def aside(seed: int, device: torch.device) -> Iterator[None]:
    """Do something from a seed of its own, so that what comes after is as if it had not been done."""
    before = capture(device)
    seed_everything(seed)
    try:
        yield
    finally:
        restore(before, device)
