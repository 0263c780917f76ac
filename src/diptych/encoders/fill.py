"""Filling a store of features: batches are made ready in threads, encoded here, written, and never made twice."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diptych.core import runtime
from diptych.core.batch import States
from diptych.core.errors import UserError, unknown
from diptych.data.images import BadPicture, decode, stack
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.base import ImageEncoder, TextEncoder, Tower
from diptych.encoders.store import StoreFiles

Progress = Callable[[int, int], None]
Items = Int64[np.ndarray, "_"]
_AHEAD = 2  # batches that each thread makes ready while one is encoded


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch on its way into a tower: the items that could be read, what the tower takes, and what was left out."""

    items: Items
    inputs: tuple[Tensor, ...]
    problems: tuple[Problem, ...] = ()


class Maker(ABC):
    """Makes features of numbered things."""

    def __init__(self, tower: Tower, *, keep: bool, precision: str) -> None:
        self.tower, self.keep, self.precision = tower, keep, precision

    @abstractmethod
    def prepare(self, items: Items) -> Ready:
        """Read some things; called in threads."""

    @torch.no_grad()
    def encode(self, ready: Ready) -> States:
        """Run the tower."""
        device = next(self.tower.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            states: States = self.tower(*(part.to(device) for part in ready.inputs))
        return states


class Pictures(Maker):
    """Makes features of the pictures of a source; as the arguments of `image_features`."""

    def __init__(
        self, tower: ImageEncoder, source: Source, *, crop: str, mirror: bool, keep: bool, precision: str
    ) -> None:
        super().__init__(tower, keep=keep, precision=precision)
        self.size, self.channels = tower.image_size, len(tower.mean)
        self.source, self.crop, self.mirror = source, crop, mirror

    def places(self) -> int:
        """Count the tokens of a picture, 0 when they are not kept."""
        if not self.keep:
            return 0
        blank = torch.zeros(1, self.channels, self.size, self.size)
        return self.encode(Ready(np.zeros(1, dtype=np.int64), (blank,))).tokens.shape[1]

    def prepare(self, items: Items) -> Ready:
        """Decode some pictures."""
        read, pictures, problems = [], [], []
        for item in items.tolist():
            try:
                picture = decode(self.source.picture(item), size=self.size, crop=self.crop)
            except BadPicture as error:
                problems.append(Problem(self.source.row(item).key, str(error)))
                continue
            read.append(item)
            pictures.append(picture.flip(-1) if self.mirror else picture)
        inputs = (stack(pictures),) if pictures else ()
        return Ready(np.array(read, dtype=np.int64), inputs, tuple(problems))


class Texts(Maker):
    """Makes features of a list of texts; as the arguments of `text_features`."""

    def __init__(
        self,
        tower: TextEncoder,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        *,
        context: int,
        keep: bool,
        precision: str,
    ) -> None:
        super().__init__(tower, keep=keep, precision=precision)
        self.tokenizer, self.texts, self.context = tokenizer, texts, context

    def prepare(self, items: Items) -> Ready:
        """Tokenize some texts."""
        return Ready(items, self.tokenizer([self.texts[item] for item in items.tolist()], self.context))


def fill(
    files: StoreFiles, maker: Maker, batches: Sequence[Items], *, workers: int, progress: Progress | None
) -> list[Problem]:
    """Make what the files do not have yet, batch by batch, so that a kill costs one batch.

    Processes share the batches; then each makes what it still cannot see, where they do not share a disk.

    Returns:
        What could not be read.

    Raises:
        UserError: when the disk has no room.
    """
    problems: list[Problem] = []
    shares = [batches] if runtime.world() == 1 else [batches[runtime.rank() :: runtime.world()], batches]
    for share in shares:
        there = files.done()
        todo = [batch for batch in share if not there[batch].all()]
        files.need_room(np.concatenate([*todo, np.empty(0, dtype=np.int64)]))
        problems, finished, total = [], 0, sum(map(len, todo))
        for batch, ready in _ahead(maker.prepare, todo, workers=workers):
            problems.extend(ready.problems)
            if len(ready.items) > 0:
                _write(files, ready, maker.encode(ready), keep=maker.keep)
            finished += len(batch)
            if progress is not None:
                progress(finished, total)
        runtime.barrier()
    return problems


def check(tower: Tower, keep: str, precision: str) -> None:
    """Check that features may be kept, and how.

    Raises:
        UserError: for a tower that is trained, or an unknown choice.
    """
    if not tower.frozen:
        raise UserError("features can be kept of a frozen tower only: set image_train or text_train to frozen")
    if keep not in ("summary", "tokens"):
        raise unknown("part of the features to keep", keep, ("summary", "tokens"))
    if precision not in ("fp32", "bf16"):
        raise unknown("precision of features", precision, ("fp32", "bf16"))


def key_of(*parts: object) -> str:
    """Return a name for a folder that is of these parts only."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{len(text)} ".encode() + text)
    return digest.hexdigest()


def _write(files: StoreFiles, ready: Ready, states: States, *, keep: bool) -> None:
    tokens = [row[real] for row, real in zip(states.tokens.cpu(), states.mask.cpu(), strict=True)] if keep else []
    files.write(ready.items, states.summary, tokens)


def _ahead(
    prepare: Callable[[Items], Ready], batches: Sequence[Items], *, workers: int
) -> Iterator[tuple[Items, Ready]]:
    """Make batches ready in threads, a few before they are asked for, in order."""
    waiting: deque[tuple[Items, Future[Ready]]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(prepare, batch)))
                if len(waiting) > _AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
