"""Question only: answers without ever seeing the picture, the baseline that any answerer has to beat.

Reference:
    Antol et al. 2015, VQA, arXiv 1505.00468 (their "LSTM Q"); Goyal et al. 2016, arXiv 1612.00837, on how far it gets.
    Any text tower stands in the place of their LSTM.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Fitted
from diptych.encoders.base import TextEncoder
from diptych.encoders.offers import Reads, Worded
from diptych.encoders.towers import build_text
from diptych.models.answering import AnswerConfig, AnswerModel, Question, read_question


class Config(AnswerConfig):
    """The text tower and what follows; the settings of the image tower are not read."""


class QuestionOnly(AnswerModel, Fitted, Worded):
    """A text tower and a classifier.

    Args:
        text: the text tower.
        config: of the system.
        spec: the data it is built for.
    """

    def __init__(self, text: TextEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.text_tower = text
        self.question = Question(text, config.dim, words=False, standardise=config.standardise)

    def logits(self, batch: Batch) -> Float[Tensor, "b a"]:
        """Score every answer."""
        scores: Tensor = self.choose(self.question(read_question(self.text_tower, batch)))
        return scores

    def reads(self) -> Reads:
        """Say what is read of the tower's outputs: the summary of a question."""
        return Reads()

    def fit(self, batches: Iterable[Batch]) -> None:
        """Take the statistics of frozen features."""
        for batch in batches if self.question.even_summary is not None else ():
            if batch.text_states is not None:
                self.question.look(batch.text_states)
        self.question.settle()


def build(config: Config, spec: DataSpec) -> QuestionOnly:
    """Build the text tower the config names."""
    return QuestionOnly(build_text(config, spec), config, spec)
