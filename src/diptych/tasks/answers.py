"""Answers: learn to answer questions about pictures, judged by kind of question and beside answers that see nothing."""

from __future__ import annotations

from collections import Counter

from diptych.core.batch import DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.questions import Questions
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Sighted, Worded
from diptych.encoders.towers import context_for, image_size_for, tokenizer_for
from diptych.metrics.answers import commonest
from diptych.models.answering import AnswerConfig
from diptych.tasks.answer_data import AnswerData, AnswerSettings
from diptych.tasks.data import spec_for
from diptych.tasks.features import Features, compute_features

Settings = AnswerSettings


def facts(source: Source, config: Config, settings: AnswerSettings) -> tuple[Tokenizer, DataSpec]:
    """Return the text tower's tokenizer, trained on the questions where it has none, and the answers of training.

    The answers that can be given are those of the training split, the commonest first.

    Raises:
        UserError: when the system does not answer, or the data has no questions to learn from.
    """
    if not isinstance(config, AnswerConfig):
        raise UserError("this system has no settings of an answerer, so it does not learn to answer")
    asking = Questions(source, settings.asking())
    rows = asking.rows("train")
    tokenizer = tokenizer_for(config, asking.texts(rows))
    counts = Counter(one.answer for row in rows.tolist() for one in asking.asked(row))
    known = [answer for answer in commonest(list(counts.elements())) if counts[answer] >= settings.least]
    if not known:
        raise UserError(
            f"{source.name} has no answer that is given {settings.least} times in training; set least lower, or is "
            "there no split named train?"
        )
    size, context = image_size_for(config), context_for(config)
    return tokenizer, spec_for(tokenizer, image_size=size, context=context, answers=tuple(known))


def join(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    settings: AnswerSettings,
    *,
    split: str = "all",
    seed: int = 0,
    device: str = "auto",
) -> AnswerData:
    """Join a source and a model; with `settings.cache`, frozen towers are asked once and their outputs kept on disk.

    Args:
        source: the data.
        model: built or loaded.
        tokenizer: of its text tower.
        spec: it was built for.
        settings: how to read questions.
        split: the rows that will be used.
        seed: of order.
        device: where frozen towers compute.
    """
    asking = Questions(source, settings.asking())
    crop = model.image_tower.crop if isinstance(model, Sighted) else "squash"
    features = Features()
    if settings.cache and isinstance(model, Worded):
        still = settings.augment == "none"
        features = compute_features(asking, model, tokenizer, spec, asking.rows(split), still=still, device=device)
    sees = isinstance(model, Sighted)
    return AnswerData(asking, tokenizer, spec, settings, sees=sees, crop=crop, features=features, seed=seed)
