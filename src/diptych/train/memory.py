"""Memory: the most that this process held while something ran."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its construction on: a GPU's memory, or on a CPU the memory that the process has in RAM.

    Linux can forget an earlier peak; elsewhere it is that of the whole process so far.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                _CLEAR.write_text("5", encoding="ascii")

    def bytes(self) -> int:
        """Return the peak so far, in bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if _STATUS.is_file():
            found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"))
            if found is not None:
                return 1024 * int(found[1])
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
