"""Runs of a comparison in processes of their own, several at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from diptych.comparing.run import Data, Job, compete
from diptych.train.interrupt import Interrupt
from diptych.train.outcome import Outcome, read_outcome
from diptych.train.plan import SECTIONS, make_plan

INTERRUPTED = 130
"""Exit status of a process whose training was interrupted."""


def compete_apart(
    jobs: Sequence[Job], data: Data, *, count: int, begin: Callable[[Job], None]
) -> Iterator[tuple[Job, Outcome | None]]:
    """Run jobs in processes of their own, so many at a time; each writes what it says into its log file.

    Args:
        jobs: in order.
        data: opened by each process anew.
        count: at a time.
        begin: told before each.

    Yields:
        Each job with its outcome when it ends, None when it was interrupted.
    """
    waiting, free = deque(jobs), list(range(count))
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    with Interrupt() as interrupt:
        try:
            while running or (waiting and not interrupt.asked):
                while waiting and free and not interrupt.asked:
                    slot, job = free.pop(0), waiting.popleft()
                    begin(job)
                    running[slot] = job, _start(job, data, slot=slot, count=count)
                time.sleep(0.1)
                for slot, (job, process) in list(running.items()):
                    if interrupt.asked and process.stdin is not None and not process.stdin.closed:
                        process.stdin.close()
                    if process.poll() is not None:
                        del running[slot]
                        free.append(slot)
                        yield job, _end(job, process)
        finally:
            for _, process in running.values():
                process.kill()
                process.wait()
    if interrupt.asked and waiting:
        yield waiting[0], None


def _start(job: Job, data: Data, *, slot: int, count: int) -> subprocess.Popen[bytes]:
    """Start a process for a job; the cores, and the GPUs where there are several, are shared out."""
    sections = job.plan.dump()
    order = {
        "data": asdict(data),
        "system": job.plan.system,
        "settings": {f"{part}.{key}": value for part in SECTIONS for key, value in sections[part].items()},
        "job": {"name": job.name, "folder": str(job.folder), "named": job.named, "command": job.command},
        "again": job.again,
        "beside": job.beside,
    }
    threads = max(1, (os.cpu_count() or 1) // count)
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    cards = torch.cuda.device_count()
    if cards > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot % cards)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "diptych.comparing.apart"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it through this process only, which asks it to stop once
        )
    _tell(process, json.dumps(order).encode() + b"\n")
    return process


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Give the process its order; one that could not even start has closed its ear."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()


def _end(job: Job, process: subprocess.Popen[bytes]) -> Outcome | None:
    if process.stdin is not None:
        process.stdin.close()
    found = read_outcome(job.folder) if process.returncode == 0 else None
    if found is not None or process.returncode == INTERRUPTED:
        return found
    why = f"its process ended with status {process.returncode}; see {job.log}"
    if process.returncode < 0:
        why = f"its process was killed by signal {-process.returncode}, perhaps for want of memory; see {job.log}"
    found = Outcome(job.plan.train.seed, failed=why)
    found.write(job.folder)
    return found


def main() -> None:
    """Do the one job that stands on the first line of standard input; stop in good order when the input ends."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    given = {**order["job"], "folder": Path(order["job"]["folder"])}
    plan = make_plan(order["system"], settings=order["settings"])
    job = Job(plan=plan, again=order["again"], beside=order["beside"], **given)
    sys.exit(0 if compete(job, Data(**order["data"]).open()) is not None else INTERRUPTED)


def _watch() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
