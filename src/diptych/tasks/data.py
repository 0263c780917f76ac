"""Task data: a source joined to one model, cut into batches and judged; each kind of task is one module beside this.

A kind is found by its name, as a system is: the config of a system says what it `learns`, and the module of that name
defines `Settings` (how batches are made of rows), `facts(source, config, settings)` (the tokenizer and the facts that
a model is built for) and `join(source, model, tokenizer, spec, settings, ...)` (a `TaskData`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.tasks.task import Batches, Evaluator, Skipping, Task


@dataclass(frozen=True, slots=True)
class Judge:
    """How a model is scored.

    Args:
        evaluators: each gives some of the scores, by flat names.
        monitor: the score whose largest value on dev marks the best weights.
    """

    evaluators: tuple[Evaluator, ...]
    monitor: str


class TaskData(ABC):
    """What one model learns from and is judged on; `source`, `tokenizer` and `spec` are those it was built for."""

    source: Source
    tokenizer: Tokenizer
    spec: DataSpec

    @abstractmethod
    def training(self) -> Batches:
        """Return what is learnt from, shuffled."""

    @abstractmethod
    def judged(self, split: str, model: Model) -> Batches | None:
        """Return the batches on which a model is scored; None when the split has nothing.

        Args:
            split: "train", "dev", "test" or "all".
            model: what will be scored; models of one kind may offer different things.
        """

    @abstractmethod
    def judge(self, model: Model) -> Judge:
        """Say how a model is scored, as far as it offers something to score."""

    def unread(self) -> tuple[Problem, ...]:
        """Return the rows that were found unreadable before any batch was made."""
        return ()

    def protocol(self, split: str) -> str:
        """Say how the scores on a split came about, where they mean nothing without; empty where they do."""
        return ""

    def task(self, model: Model) -> Task:
        """Return the task: train, dev as valid, test, and the judge."""
        judge = self.judge(model)
        return Task(
            spec=self.spec,
            train=self.training(),
            valid=self.judged("dev", model),
            test=self.judged("test", model),
            evaluators=judge.evaluators,
            monitor=judge.monitor,
        )

    def scores(self, model: Model, split: str, *, skipped: list[Problem] | None = None) -> dict[str, float]:
        """Score a model on a split.

        Args:
            model: a trained one.
            split: "train", "dev", "test" or "all".
            skipped: gets the rows that could not be read; they are left out.

        Returns:
            The scores by flat names such as `image_to_text/r@1`.

        Raises:
            UserError: when the split has nothing.
        """
        batches = self.judged(split, model)
        if batches is None:
            raise UserError(f"{self.source.name} has nothing in split {split!r}; choose another split, or all")
        return judge_on(model, batches, self.judge(model).evaluators, skipped=skipped)


def judge_on(
    model: Model, batches: Batches, evaluators: Sequence[Evaluator], *, skipped: list[Problem] | None = None
) -> dict[str, float]:
    """Ask each evaluator for its scores of a model on some batches; `skipped` gets what could not be read."""
    training = model.training
    model.eval()
    scores: dict[str, float] = {}
    for evaluator in evaluators:
        scores |= evaluator(model, batches.epoch(0))
    model.train(training)
    if skipped is not None and isinstance(batches, Skipping):
        skipped += [problem for problem in batches.skipped if isinstance(problem, Problem)]
    return scores


def spec_for(
    tokenizer: Tokenizer,
    *,
    image_size: int = 64,
    context: int = 32,
    classes: tuple[str, ...] = (),
    answers: tuple[str, ...] = (),
) -> DataSpec:
    """Gather the facts that a model is built for; vocabulary and special tokens are the tokenizer's."""
    return DataSpec(
        image_size=image_size,
        vocabulary=tokenizer.vocabulary,
        context=context,
        pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        unk_id=tokenizer.unk_id,
        classes=classes,
        answers=answers,
    )
