"""Plan: everything that decides a run, gathered from a recipe and from settings typed in."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from diptych import models, tasks
from diptych.core.config import Config
from diptych.core.errors import UserError, unknown
from diptych.train.config import TrainConfig

SECTIONS = ("model", "data", "train")


@dataclass(frozen=True, slots=True)
class Plan:
    """A system with the choices for its model, its data and its training."""

    system: str
    model: Config
    data: Config
    train: TrainConfig

    def dump(self) -> dict[str, Any]:
        """Return plain values by section, as they stand in a run's `config.json`."""
        return {"system": self.system, **{name: getattr(self, name).model_dump(mode="json") for name in SECTIONS}}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings that are known to work, by section, and what they are for."""

    about: str = ""
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with diptych."""
    return sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe by its name, or a file of the user's own.

    Raises:
        UserError: when there is none of that name, or the file is not a recipe.
    """
    own = Path(name)
    if own.suffix == ".toml" and own.is_file():
        text = own.read_text(encoding="utf-8")
    elif name in recipe_names():
        text = _folder().joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise unknown("recipe", name, recipe_names())
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name} is not TOML: {error}") from None
    for section in values:
        if section not in (*SECTIONS, "about"):
            raise unknown("recipe section", section, (*SECTIONS, "about"))
    return Recipe(str(values.pop("about", "")), values)


def make_plan(system: str, *, recipe: Recipe | None = None, settings: Mapping[str, Any] | None = None) -> Plan:
    """Gather a plan: the defaults, over them the recipe, over it the settings.

    Args:
        system: a built-in system or a module path of the user's own.
        recipe: settings by section.
        settings: values by field name, as `{"epochs": "20", "image_encoder": "vit"}`; a field's section is found, or
            said as in `train.lr`.

    Raises:
        UserError: for a system, setting or value that is not known.
    """
    choices = models.load(system).Config
    kinds: dict[str, type[Config]] = {
        "model": choices,
        "data": tasks.load(choices.learns).Settings,
        "train": TrainConfig,
    }
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, known in (recipe.sections if recipe is not None else {}).items():
        values[name].update(known)
    for key, value in (settings or {}).items():
        section, name = _place(key, kinds)
        values[section][name] = value
    built = {name: kind.parse(values[name]) for name, kind in kinds.items()}
    return Plan(system, built["model"], built["data"], built["train"])  # type: ignore[arg-type]


def _place(key: str, kinds: Mapping[str, type[Config]]) -> tuple[str, str]:
    """Find the section and field that a setting's name means."""
    section, dot, name = key.partition(".")
    if dot and section in kinds:
        if name not in kinds[section].model_fields:
            raise unknown(f"setting of {section}", name, kinds[section].model_fields)
        return section, name
    for section, kind in kinds.items():
        if key in kind.model_fields:
            return section, key
    raise unknown("setting", key, [name for kind in kinds.values() for name in kind.model_fields])


def _folder() -> Any:
    return files("diptych").joinpath("recipes")
