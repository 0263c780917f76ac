"""Pairs: learn from pictures and their captions, judged by how well each finds the other."""

from __future__ import annotations

from diptych.core.batch import DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.noise import Noisy
from diptych.data.prompts import Prompted
from diptych.data.select import Rule, Selected
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Telling, Towered, Worded
from diptych.encoders.towers import TowerConfig, context_for, image_size_for, tokenizer_for
from diptych.tasks.data import spec_for
from diptych.tasks.features import Features, compute_features
from diptych.tasks.pair_data import PairData, PairSettings

Settings = PairSettings


def facts(source: Source, config: Config, settings: PairSettings) -> tuple[Tokenizer, DataSpec]:
    """Return the text tower's tokenizer, trained on the captions where it has none, and the facts for a dual encoder.

    Raises:
        UserError: when the system takes no towers, or the data has no captions, or no classes where they are asked for.
    """
    if not isinstance(config, TowerConfig):
        raise UserError("this system has no image and text tower, so it does not learn from pictures with captions")
    source = arranged(source, settings)
    source.need_captions()
    tokenizer = tokenizer_for(config, source.texts(source.rows("train")))
    classes = classes_of(source) if settings.labels else told_classes(source)
    return tokenizer, spec_for(
        tokenizer, image_size=image_size_for(config), context=context_for(config), classes=classes
    )


def arranged(source: Source, settings: PairSettings) -> Source:
    """Return a source as the settings want it: rows chosen, labels told in words, captions disturbed."""
    rules = [
        Rule.parse(text, wanted=wanted) for text, wanted in ((settings.only, True), (settings.exclude, False)) if text
    ]
    if rules:
        source = Selected(source, rules)
    if settings.noise > 0:
        source = Noisy(source, settings.noise)
    return Prompted(source, settings.prompts) if settings.prompts else source


def told_classes(source: Source) -> tuple[str, ...]:
    """Return the classes that stand in for captions, so that pictures of one class are known to belong together."""
    return source.classes() if isinstance(source, Prompted) else ()


def classes_of(source: Source) -> tuple[str, ...]:
    """Return the names of the classes that the training pictures have, sorted.

    Raises:
        UserError: when there are none.
    """
    found = {source.row(int(row)).fields.get("label") for row in source.rows("train")} - {None}
    if not found:
        raise UserError(f"{source.name} has no classes; name their column with --label-column, or leave labels=false")
    return tuple(sorted(str(name) for name in found))


def join(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    settings: PairSettings,
    *,
    split: str = "all",
    seed: int = 0,
    device: str = "auto",
) -> PairData:
    """Join a source and a model; with `settings.cache`, frozen towers are asked once and their outputs kept on disk.

    Args:
        source: the data.
        model: built or loaded.
        tokenizer: of its text tower.
        spec: it was built for.
        settings: how to read pairs.
        split: the rows that will be used.
        seed: of order and captions.
        device: where frozen towers compute.
    """
    source = arranged(source, settings)
    crop = model.image_tower.crop if isinstance(model, Towered) else "squash"
    features = Features()
    if settings.cache and isinstance(model, Worded):
        still = settings.augment == "none"
        features = compute_features(source, model, tokenizer, spec, source.rows(split), still=still, device=device)
    numbers = isinstance(model, Telling)
    return PairData(source, tokenizer, spec, settings, crop=crop, features=features, seed=seed, numbers=numbers)
