"""Pairs: learn from pictures and their captions, judged by how well each finds the other."""

from __future__ import annotations

from diptych.core.batch import DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Towered
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
    source.need_captions()
    tokenizer = tokenizer_for(config, source.texts(source.rows("train")))
    classes = classes_of(source) if settings.labels else ()
    return tokenizer, spec_for(
        tokenizer, image_size=image_size_for(config), context=context_for(config), classes=classes
    )


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
    crop = model.image_tower.crop if isinstance(model, Towered) else "squash"
    features = Features()
    if settings.cache and isinstance(model, Towered):
        still = settings.augment == "none"
        features = compute_features(source, model, tokenizer, spec, source.rows(split), still=still, device=device)
    return PairData(source, tokenizer, spec, settings, crop=crop, features=features, seed=seed)
