"""Abilities: what a model may offer a user, in the words that pages, cards, verbs and refusals share."""

from __future__ import annotations

from dataclasses import dataclass

from diptych.core.errors import UserError
from diptych.core.model import Answerer, Captioner, Classifier, ImageGenerator, Model, PairEncoder


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that a user can do with some models.

    Args:
        offered: the interface of the models that can.
        refusal: what is said of a model that cannot, after its name; it names a system that can.
        tag: the name of the task on model hubs.
        python: a call of `Predictor`, by way of example.
        command: a command, by way of example; `{run}` is the run folder.
    """

    offered: type
    refusal: str
    tag: str
    python: str
    command: str


ABILITIES = (
    Ability(
        PairEncoder,
        "has no space for both pictures and texts; clip has",
        "image-text-retrieval",
        'model.similarity("photo.jpg", ["a text", "another text"])',
        'diptych index {run} PICTURES --out INDEX, then diptych search INDEX "a text"',
    ),
    Ability(
        Captioner,
        "does not write captions; meshed_memory does",
        "image-to-text",
        'model.caption("photo.jpg")',
        "diptych caption {run} PICTURE",
    ),
    Ability(
        Answerer,
        "does not answer questions; attention_vqa does",
        "visual-question-answering",
        'model.ask("photo.jpg", "what colour is it?")',
        'diptych ask {run} PICTURE "QUESTION"',
    ),
    Ability(
        Classifier,
        "knows no classes of its own; fine_tune does",
        "image-classification",
        'model.classify("photo.jpg")',
        "diptych classify {run} PICTURE",
    ),
    Ability(
        ImageGenerator,
        "draws no pictures; gan_cls does",
        "text-to-image",
        'model.generate("a large red circle", count=8)',
        'diptych generate {run} "a text"',
    ),
)


def abilities(model: Model) -> tuple[Ability, ...]:
    """Return what a model offers."""
    return tuple(ability for ability in ABILITIES if isinstance(model, ability.offered))


def cannot(model: Model, offered: type, *, system: str = "") -> UserError:
    """Return the error for a model that was asked for what it does not offer; it names a system that does."""
    (refusal,) = (ability.refusal for ability in ABILITIES if ability.offered is offered)
    return UserError(f"{system or type(model).__name__} {refusal}")
