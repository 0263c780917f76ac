"""The server under load: 64 clients on loopback, each asking again as soon as it is answered, for a minute.

Three of five questions are texts nobody asked before, one is a picture sent, one asks for a picture or names one. The
same load then meets the same server with batching off (`--max-batch 1`). Without `--run` and `--index` a small CLIP
is trained on drawn scenes first. Nothing leaves this machine.

    python -m benchmarks.serve --run runs/mine --index photos.index
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import arguments, report

SAYING = "a the red green large small dog child man runs through snow beach ball two plays jumps water on left of"


class Client:
    """One connection that asks again and again; HTTP/1.1 by hand, so that asking costs little beside answering."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    async def open(self) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    async def ask(self, method: str, path: str, kind: str = "", body: bytes = b"") -> tuple[int, bytes]:
        """Ask and return the status and the body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Length: {len(body)}\r\n"
        self.writer.write((head + (f"Content-Type: {kind}\r\n" if kind else "") + "\r\n").encode() + body)
        await self.writer.drain()
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(re.search(r"content-length: (\d+)", answer, re.IGNORECASE)[1])
        return int(answer.split(" ", 2)[1]), await self.reader.readexactly(length)


def questions(rng: random.Random, keys: list[str], pictures: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    """Draw the next question: its kind, and what `Client.ask` takes."""
    drawn = rng.random()
    if drawn < 0.6:
        text = " ".join(rng.choices(SAYING.split(), k=rng.randint(3, 14))) + f" {rng.randrange(10**6)}"
        return "search by text", ("POST", "/api/search/text", "application/json", json.dumps({"text": text}).encode())
    if drawn < 0.8:
        return "search by picture", ("POST", "/api/search/picture", *form({"k": b"20"}, rng.choice(pictures)))
    if drawn < 0.9:
        labels = [" ".join(rng.choices(SAYING.split(), k=2)).encode() for _ in range(3)]
        return "3 tags", ("POST", "/api/tags", *form({"labels": labels}, rng.choice(pictures)))
    return "picture of the index", ("GET", f"/api/picture?id={rng.choice(keys)}&side=320")


def form(fields: dict[str, Any], picture: bytes) -> tuple[str, bytes]:
    """Make a multipart body."""
    parts = [b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n' + picture + b"\r\n"]
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            parts.append(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n")
    return "multipart/form-data; boundary=x", b"".join(parts) + b"--x--\r\n"


async def load(host: str, port: int, *, clients: int, seconds: float, keys: list[str]) -> dict[str, Any]:
    """Let clients ask for a while; return milliseconds by kind, the answers that were no 200, and the seconds."""
    pictures = [_picture(seed) for seed in range(32)]
    times: dict[str, list[float]] = defaultdict(list)
    errors: Counter[int] = Counter()
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        rng, client = random.Random(number), Client(host, port)
        await client.open()
        while time.perf_counter() < end:
            kind, asked = questions(rng, keys, pictures)
            start = time.perf_counter()
            status, _ = await client.ask(*asked)
            times[kind].append((time.perf_counter() - start) * 1000)
            if status != 200:
                errors[status] += 1
        client.writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    return {"times": times, "errors": errors, "seconds": time.perf_counter() - start}


def _picture(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((640, 480))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class Server:
    """A `diptych serve` of our own."""

    def __init__(self, run: Path, index: Path, *words: str) -> None:
        command = ["serve", str(run), "--index", str(index), "--port", "0", *words]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "diptych", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        said = ""
        while "Open http" not in said:
            line = self.process.stdout.readline()
            if not line:
                sys.exit("the server did not start: try diptych " + " ".join(command))
            said += line
        self.host, port = re.search(r"http://([\d.]+):(\d+)", said).groups()
        self.port = int(port)
        self.get("/health/ready")

    def get(self, path: str) -> str:
        """Return what stands at a path."""
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://{self.host}:{self.port}{path}", timeout=30) as answer:
                    return answer.read().decode()
            except ConnectionError:
                time.sleep(0.1)
            except urllib.error.URLError:
                time.sleep(0.1)
        sys.exit("the server does not answer")

    def memory(self) -> float:
        """Return its memory in MiB."""
        return float(re.search(r"\nprocess_resident_memory_bytes (\S+)", self.get("/metrics"))[1]) / 2**20

    def batch(self) -> float:
        """Return how many texts the model read together, on average."""
        page = self.get("/metrics")
        total, count = (
            float(re.search(rf'diptych_batch_items_{name}{{kind="texts"}} (\S+)', page)[1]) for name in ("sum", "count")
        )
        return total / max(count, 1)

    def stop(self) -> int:
        """Tell it to end; return its status."""
        self.process.terminate()
        return self.process.wait(timeout=60)


def measure(name: str, server: Server, *, clients: int, seconds: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Load a server and return rows for the table, and notes."""
    keys = [one["id"] for one in json.loads(server.get("/api/about"))["sample"]]
    asyncio.run(load(server.host, server.port, clients=clients, seconds=min(10, seconds), keys=keys))
    before = server.memory()
    found = asyncio.run(load(server.host, server.port, clients=clients, seconds=seconds, keys=keys))
    after, batch = server.memory(), server.batch()
    rows = []
    together = [time for times in found["times"].values() for time in times]
    for kind, times in [*sorted(found["times"].items()), ("all", together)]:
        cuts = quantiles(times, n=100)
        rate = len(times) / found["seconds"]
        rows.append({"server": name, "asked": kind, "answers": len(times), "per second": rate, "p50 ms": cuts[49]})
        rows[-1] |= {"p95 ms": cuts[94], "most ms": max(times)}
    notes = [
        f"{name}: {found['errors'].total()} errors {dict(found['errors']) or ''}; memory {before:.0f} MiB after 10 s, "
        f"{after:.0f} MiB at the end; {batch:.1f} texts a batch; ended with status {server.stop()} on SIGTERM"
    ]
    return rows, notes


def small_run(folder: Path) -> tuple[Path, Path]:
    """Train a small CLIP on scenes and index them."""
    run, index = folder / "run", folder / "index"
    for words in (
        ["train", "clip", "scenes:400", "--set", "steps=100", "--set", "batch_size=64", "--out", str(run)],
        ["index", str(run), "scenes:400", "--out", str(index)],
    ):
        subprocess.run([sys.executable, "-m", "diptych", *words], check=True, stdout=subprocess.DEVNULL)
    return run, index


def more(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark takes."""
    parser.add_argument("--run", type=Path, help="a trained run; a small one is made when not given")
    parser.add_argument("--index", type=Path, help="an index of its pictures")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)


def main() -> None:
    """Measure with and without batching."""
    given = arguments(__doc__, more=more)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        run, index = (given.run, given.index) if given.run and given.index else small_run(Path(folder))
        rows, notes = [], []
        for name, words, seconds in (
            ("batching", (), given.seconds),
            ("one by one", ("--max-batch", "1"), given.seconds / 3),
        ):
            its_rows, its_notes = measure(name, Server(run, index, *words), clients=given.clients, seconds=seconds)
            rows, notes = rows + its_rows, notes + its_notes
        report(f"diptych serve, {given.clients} clients at once", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
