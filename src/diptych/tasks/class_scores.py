"""What a classifier makes of the pictures of two domains, and how it is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.metrics.classes import accuracy
from diptych.metrics.infomax import infomax

SOURCE, TARGET = 0, 1


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a classifier makes of pictures, with what is known of them.

    Args:
        features: that classes are read from.
        logits: of the classes.
        label: -1 where it is not told, the number of classes where it is none of them.
        domain: 0 for the source, 1 for the target.
        row: in the source.
    """

    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]
    label: Int[Tensor, " n"]
    domain: Int[Tensor, " n"]
    row: Int[Tensor, " n"]

    def scores(self, *, prefixed: bool) -> dict[str, float]:
        """Score each side whose labels are told.

        Args:
            prefixed: name the side of each score; otherwise there is only one.

        Returns:
            Accuracy over pictures, its mean over classes, and how decided and varied the guesses on the target are.
        """
        scores: dict[str, float] = {}
        for side, name in ((SOURCE, "source/"), (TARGET, "target/")):
            mine = self.domain == side
            told = mine & (self.label >= 0)
            if bool(told.any()):
                scores |= _accuracy(self.logits[told], self.label[told], name if prefixed else "")
            if side == TARGET and bool(mine.any()):
                scores["target/infomax"] = infomax(self.logits[mine])
        return scores

    def chance(self, sides: tuple[int, ...]) -> float:
        """Return the mean chance that is given to the right class, over the told pictures of some sides."""
        told = torch.isin(self.domain, torch.tensor(sides)) & (self.label >= 0) & (self.label < self.logits.shape[1])
        sure = self.logits[told].double().softmax(1).gather(1, self.label[told][:, None])
        return sure.mean().item() if len(sure) else 0.0


def _accuracy(logits: Float[Tensor, "n c"], label: Int[Tensor, " n"], side: str) -> dict[str, float]:
    """Score guesses; a class that was never learnt is always named wrong."""
    if int(label.max()) == logits.shape[1]:
        logits = torch.cat([logits, torch.full_like(logits[:, :1], logits.min().item() - 1)], 1)
    found = accuracy(logits, label, ks=(1,))
    return {f"{side}accuracy": found["top1"], f"{side}accuracy_by_class": found["mean_per_class"]}
