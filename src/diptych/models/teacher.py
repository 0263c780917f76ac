"""Teacher: a trained run that shows a student what it makes of each batch; it is opened when it is first asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.core.saved import read_record
from diptych.encoders.base import Tower
from diptych.encoders.offers import Towered
from diptych.models.saved import open_model


class Teacher:
    """Holds the model of a run outside the student, so that it is neither trained nor saved with it.

    It is no `nn.Module`, and the student can be built, loaded and used where the run is gone: only its loss needs it.

    Args:
        run: the folder.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._model: Model | None = None
        self._scale = 0.0
        self._same: dict[str, bool] = {}

    def open(self, device: torch.device) -> PairEncoder:
        """Return the model, opened the first time; random numbers are left as they were.

        Raises:
            UserError: when the folder is no finished run, or one without a space for pictures and texts.
        """
        if self._model is None:
            folder = Path(self.run).expanduser()
            with torch.random.fork_rng(devices=[]):
                record = read_record(folder)
                self._model = open_model(folder, record).requires_grad_(False)
            if not isinstance(self._model, PairEncoder):
                raise UserError(
                    f"the teacher in {self.run} is a {record['system']!r}, which has no space for pictures and texts"
                )
            self._scale = float(self._model.scale())
        self._model = self._model.to(device)
        assert isinstance(self._model, PairEncoder)
        return self._model

    @torch.no_grad()
    def embed(self, batch: Batch, student: Towered) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        """Return the teacher's unit vectors of both sides.

        Args:
            batch: pixels and tokens, or what the student's frozen towers made of them.
            student: its towers are compared with the teacher's.

        Raises:
            UserError: when the batch has outputs of a tower only that is not the teacher's.
        """
        model = self.open(_device(batch))
        seen = replace(
            batch,
            image_states=self._readable("image", batch.image_states, student, model),
            mirrored_states=self._readable("image", batch.mirrored_states, student, model),
            text_states=self._readable("text", batch.text_states, student, model),
        )
        for side, states, given in (("image", seen.image_states, seen.image), ("text", seen.text_states, seen.tokens)):
            if states is None and given is None:
                raise UserError(
                    f"the teacher in {self.run} cannot read what is kept of the student's frozen {side} tower; "
                    "give cache=false, so that it sees the data itself"
                )
        return model.encode_image(seen).float(), model.encode_text(seen).float()

    def scale(self) -> float:
        """Return the teacher's inverse temperature; it was opened before."""
        return self._scale

    def _readable(self, side: str, states: States | None, student: Towered, model: PairEncoder) -> States | None:
        """Return outputs of the student's frozen tower when the teacher's is the same and reads no more of it."""
        if states is None or not isinstance(model, Towered):
            return None
        reads = model.reads()
        more = reads.grid if side == "image" else reads.words
        if more and states.tokens.shape[1] == 0:
            return None
        if side not in self._same:
            mine, theirs = _tower(model, side), _tower(student, side)
            self._same[side] = mine.identity() == theirs.identity()
        return states if self._same[side] else None


def _tower(model: Towered, side: str) -> Tower:
    return model.image_tower if side == "image" else model.text_tower


def _device(batch: Batch) -> torch.device:
    """Return where a batch lies."""
    for value in (batch.image, batch.tokens):
        if value is not None:
            return value.device
    states = batch.need("image_states")
    device: torch.device = states.summary.device
    return device
