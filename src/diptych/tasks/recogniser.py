"""Recogniser: a classifier trained by itself on real pictures, which says what drawn pictures show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Classifier, Model
from diptych.core.saved import read_record
from diptych.models.saved import open_model


@dataclass(frozen=True, slots=True)
class Seen:
    """What the recogniser makes of some pictures.

    Args:
        features: that it reads the classes from.
        logits: of its classes.
    """

    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]


class Recogniser:
    """Holds the classifier of a run; it is opened when it is first asked, and belongs to no model.

    Args:
        run: the folder.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._model: Model | None = None
        self._record = read_record(Path(run).expanduser())
        self.spec = DataSpec.parse(self._record["spec"])

    @torch.no_grad()
    def look(self, pictures: Shaped[Tensor, "b c h w"]) -> Seen:
        """Look at pictures, uint8 in [0, 255] or float in [0, 1]; of another size than its own they are resized.

        Raises:
            UserError: when the run is unfinished or no classifier.
        """
        model = self._open(pictures.device)
        assert isinstance(model, Classifier)
        size = self.spec.image_size
        values = pictures / 255 if pictures.dtype == torch.uint8 else pictures
        if values.shape[-1] != size:
            values = F.interpolate(values.float(), size=(size, size), mode="bilinear", antialias=True)
        features = model.features(Batch(image=values))
        return Seen(features.float().cpu(), model.logits(features).float().cpu())

    def about(self) -> str:
        """Say what it is: `fine_tune trained on scenes?seed=1`."""
        return f"{self._record['system']} trained on {self._record.get('data', {}).get('named', 'unnamed data')}"

    def _open(self, device: torch.device) -> Model:
        if self._model is None:
            with torch.random.fork_rng(devices=[]):
                self._model = open_model(Path(self.run).expanduser(), self._record).requires_grad_(False)
            if not isinstance(self._model, Classifier):
                raise UserError(
                    f"recogniser={self.run} is a {self._record['system']!r}, which names no classes; train fine_tune "
                    "on real pictures with labels and give its folder"
                )
        return self._model.to(device)
