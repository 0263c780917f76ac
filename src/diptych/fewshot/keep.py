"""Fine-tuning inside the protocol, and what it forgets: another task is scored before, after, and part of the way."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.model import PairEncoder
from diptych.data.source import Source
from diptych.fewshot.pictures import Pictures
from diptych.fewshot.shots import Draw, choose
from diptych.fewshot.study import Kept, Study
from diptych.fewshot.wise_ft import SHARES, ImageSide, Weights, interpolate
from diptych.metrics.classes import accuracy
from diptych.metrics.retrieval import retrieval
from diptych.predictor import Predictor

FEWEST = 4
"""Classes that are needed to tune on one half and ask for the other."""


class Elsewhere:
    """Retrieval among other pictures and captions, which a tuned model shall still do.

    Args:
        predictor: as it was aligned.
        source: pictures with captions; its test split is used, or dev where that is empty.
    """

    def __init__(self, predictor: Predictor, source: Source) -> None:
        source.need_captions()
        rows = source.rows("test")
        rows = rows if len(rows) > 0 else source.rows("dev")
        self.pictures = Pictures(predictor, source)
        self.rows, _ = self.pictures.read(np.array([row for row in rows.tolist() if source.row(row).captions]))
        captions = [list(source.row(row).captions) for row in self.rows.tolist()]
        self.text_id = torch.from_numpy(np.repeat(self.rows, [len(own) for own in captions]))
        self.text = torch.from_numpy(predictor.embed_text([text for own in captions for text in own]))
        self.name = f"retrieval among {len(self.rows):,} pictures, mean R@1"

    def __call__(self, encoder: PairEncoder) -> float:
        """Return the mean of R@1 both ways, in [0, 1]; the captions stay as they were encoded first."""
        image = self.pictures.vectors(encoder, self.rows).cpu()
        found = retrieval(image, self.text, image_id=torch.from_numpy(self.rows), text_id=self.text_id)
        return (found["image_to_text"]["r@1"] + found["text_to_image"]["r@1"]) / 2


class Tuner:
    """Fine-tunes the image side on a draw and asks what was kept: elsewhere, or of the classes it was not tuned on.

    Args:
        study: features, draws and settings.
        elsewhere: another task; None tunes once more on half of the classes, drawn by the seed, and asks for the rest.

    Raises:
        UserError: when nothing of the image side can be tuned.
    """

    def __init__(self, study: Study, elsewhere: Elsewhere | None) -> None:
        self.study, self.elsewhere = study, elsewhere
        self.side = ImageSide(study.predictor.model, study.pictures.batch(study.readable_test()[0][:2]))

    def __call__(self, drawn: Draw, seed: int) -> tuple[Float[Tensor, "m c"], dict[str, float], Kept | None]:
        """Return class scores of the test pictures, the share of the way that validation chose, and what was kept."""
        study = self.study
        rows, _ = study.readable_test()
        every = np.arange(len(study.labelled.names))
        after, share = self._adapt(drawn, every, seed)
        scores = self._scores(after, share, rows, every)
        kept: Kept | None = None
        if self.elsewhere is not None:
            found = [self._elsewhere(after, part) for part in (0.0, 1.0, share)]
            kept = Kept(self.elsewhere.name, *found)
        else:
            kept = self._other_half(drawn, seed)
        return scores, {"share": share}, kept

    def _other_half(self, drawn: Draw, seed: int) -> Kept | None:
        """Tune on half of the classes and name pictures of the other half among the names of that half.

        Returns:
            None where there are too few classes, or no readable picture of one of the halves.
        """
        study = self.study
        order = np.random.default_rng((seed, len(study.labelled.names))).permutation(len(study.labelled.names))
        half, rest = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        rows, label = study.readable_test()
        asked = np.isin(label, rest)
        if len(order) < FEWEST or not asked.any() or not np.isin(study.labelled.pool_label[drawn.train], half).any():
            return None
        after, share = self._adapt(drawn, half, seed)
        target = study.classes(np.searchsorted(rest, label[asked]))
        found = [
            accuracy(self._scores(after, part, rows[asked], rest), target, ks=(1,))["top1"]
            for part in (0.0, 1.0, share)
        ]
        return Kept(f"zero-shot among the {len(rest)} classes not tuned on", *found)

    def _adapt(self, drawn: Draw, classes: Int64[np.ndarray, " c"], seed: int) -> tuple[Weights, float]:
        """Tune on the shots of some classes; return the weights and the share that their validation shots choose."""
        study = self.study
        pool, label = study.labelled.pool, study.labelled.pool_label
        train, valid = (places[np.isin(label[places], classes)] for places in (drawn.train, drawn.valid))
        if len(train) == 0:
            raise UserError("there is no readable picture to fine-tune on")
        rows = pool[train]
        after = self.side.tune(
            lambda places: study.pictures.batch(rows[places.numpy()]),
            study.classes(np.searchsorted(classes, label[train])),
            study.text[torch.from_numpy(classes).to(study.text.device)],
            scale=study.scale,
            config=study.config.tune,
            seed=seed,
        )
        target = study.classes(np.searchsorted(classes, label[valid]))
        tried = ((share, self._scores(after, share, pool[valid], classes)) for share in SHARES)
        return after, choose(tried, target, usual=0.5)

    def _scores(
        self, after: Weights, share: float, rows: Int64[np.ndarray, " n"], classes: Int64[np.ndarray, " c"]
    ) -> Float[Tensor, "n c"]:
        study = self.study
        self.side.put(interpolate(self.side.before, after, share))
        text = study.text[torch.from_numpy(classes).to(study.text.device)]
        return study.scale * study.pictures.vectors(self.side.encoder, rows) @ text.T

    def _elsewhere(self, after: Weights, share: float) -> float:
        assert self.elsewhere is not None
        self.side.put(interpolate(self.side.before, after, share))
        return self.elsewhere(self.side.encoder)
