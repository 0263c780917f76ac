"""Contest: which systems meet, under which names, and the plan of each from what they share and what is its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diptych import models, tasks
from diptych.core.errors import UserError, unknown
from diptych.encoders.towers import TowerConfig
from diptych.train.config import TrainConfig
from diptych.train.plan import SECTIONS, Plan, Recipe, make_plan

SEED = ("seed", "train.seed")
BUDGET = ("epochs", "steps", "batch_size", "captions", "augment", "only", "exclude", "noise", "init", "patience")
"""Settings that say how much a system may learn from; where they differ, that is told."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A system under a name, with settings of its own."""

    name: str
    system: str
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> str:
        """The own settings as they are typed."""
        return ",".join(f"{key}={value}" for key, value in self.own.items())


@dataclass(frozen=True, slots=True)
class Contest:
    """The plan of each contestant, the seed that the first run of each has, and what should be known of them."""

    plans: Mapping[str, Plan]
    seed: int
    notes: tuple[str, ...] = ()

    def plan(self, name: str, seed: int) -> Plan:
        """Return a contestant's plan with a seed."""
        plan = self.plans[name]
        return replace(plan, train=plan.train.model_copy(update={"seed": seed}))


def parse_contestant(word: str) -> Contestant:
    """Read `clip`, `clip:scale=20,head=mlp` or `big=clip:dim=512`.

    A comma begins a new setting when `key=` follows it, and else belongs to the value: `image_blocks=2,2,2`.

    Raises:
        UserError: when it cannot be read, or the name cannot be that of a folder.
    """
    head, colon, rest = word.partition(":")
    name, equals, system = head.rpartition("=")
    own: dict[str, str] = {}
    last = ""
    for piece in rest.split(",") if colon else ():
        key, given, value = piece.partition("=")
        if given and key:
            if key in SEED:
                raise UserError(
                    f"{word!r} gives a seed; every contestant gets the same ones, by --seeds and --set seed="
                )
            if key in own:
                raise UserError(f"{word!r} gives {key} twice; keep one")
            own[key], last = value, key
        elif last and not given:
            own[last] += f",{piece}"
        else:
            raise UserError(f"cannot read {word!r}; give SYSTEM, SYSTEM:KEY=VALUE,KEY=VALUE or NAME=SYSTEM:KEY=VALUE")
    plain = "-".join([system, *(f"{key}={value}" for key, value in own.items())])
    name = name if equals else re.sub(r"[^\w.,=+-]", "_", plain)
    if not system or not re.fullmatch(r"\w[\w.,=+-]*", name):
        raise UserError(f"cannot read {word!r}: a name has letters, digits, - and _; for example big=clip:dim=512")
    return Contestant(name, system, own)


def parse_contestants(words: Iterable[str]) -> tuple[Contestant, ...]:
    """Read several, which must have different names.

    Raises:
        UserError: also when two have one name.
    """
    found: dict[str, Contestant] = {}
    for word in words:
        one = parse_contestant(word)
        if one.name in found:
            raise UserError(f"two contestants are called {one.name!r}; give one another name, as other={word}")
        found[one.name] = one
    return tuple(found.values())


def make_contest(
    contestants: Sequence[Contestant], *, recipe: Recipe | None = None, settings: Mapping[str, str] | None = None
) -> Contest:
    """Plan every contestant: defaults, over them the recipe, the shared settings and its own.

    What only some systems know is given to those, and the contest's notes say so.

    Raises:
        UserError: for a setting that no system knows, or a value that one refuses.
    """
    shared = dict(settings or {})
    given = recipe if recipe is not None else Recipe()
    fields = {one.name: _fields(one.system) for one in contestants}
    notes = []
    for section, values in given.sections.items():
        for key in values:
            notes += _told(f"{section}.{key}", key, fields)
    for key in shared:
        notes += _told(key, key, fields)
    seed = next((shared.pop(key) for key in SEED if key in shared), given.sections.get("train", {}).get("seed", 0))
    plans = {}
    for one in contestants:
        known = fields[one.name]
        sections = {
            section: {key: value for key, value in values.items() if key in known[section]}
            for section, values in given.sections.items()
        }
        mine = {key: value for key, value in shared.items() if _knows(known, key)}
        try:
            plans[one.name] = make_plan(one.system, recipe=Recipe(given.about, sections), settings={**mine, **one.own})
        except UserError as error:
            raise UserError(f"{one.name}: {error}") from None
    start = TrainConfig.parse({"seed": seed}).seed
    return Contest(plans, start, (*notes, *differences(plans)))


def _fields(system: str) -> dict[str, frozenset[str]]:
    config = models.load(system).Config
    kinds = {"model": config, "data": tasks.load(config.learns).Settings, "train": TrainConfig}
    return {section: frozenset(kinds[section].model_fields) for section in SECTIONS}


def _knows(fields: Mapping[str, frozenset[str]], key: str) -> bool:
    section, dot, name = key.partition(".")
    if dot:
        return name in fields.get(section, ())
    return any(key in names for names in fields.values())


def _told(key: str, word: str, fields: Mapping[str, Mapping[str, frozenset[str]]]) -> list[str]:
    """Say who does not know a shared setting; refuse one that nobody knows."""
    without = [name for name, known in fields.items() if not _knows(known, key)]
    if len(without) == len(fields):
        names = {name for known in fields.values() for section in known.values() for name in section}
        raise unknown("setting", word, names)
    return [f"{word} is not a setting of {_listed(without)}, and so not given there"] if without else []


def differences(plans: Mapping[str, Plan]) -> list[str]:
    """Say where contestants do not have the same towers or the same budget."""
    found = []
    for kind, names in (("budget", BUDGET), ("towers", tuple(TowerConfig.model_fields))):
        for name in names:
            groups: dict[str, list[str]] = {}
            for who, plan in plans.items():
                values = {**plan.model.model_dump(), **plan.data.model_dump(), **plan.train.model_dump()}
                if name in values:
                    groups.setdefault(str(values[name]), []).append(who)
            if len(groups) > 1:
                parts = [f"{value!s} for {_listed(who)}" for value, who in groups.items()]
                found.append(f"not the same {kind}: {name} is {', '.join(parts)}")
    return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def command_for(plan: Plan, *, data: str, out: Path, options: Mapping[str, str]) -> str:
    """Return the `diptych train` that makes a run of a plan by itself.

    Args:
        plan: of the run.
        data: as it was named.
        out: the run folder.
        options: of the data, as `{"--caption-column": "title"}`.
    """
    words = ["diptych", "train", plan.system, data, "--out", str(out)]
    words += [word for name, value in options.items() for word in (name, value)]
    for section in SECTIONS:
        config = getattr(plan, section)
        for name, value in config.model_dump(exclude_defaults=True).items():
            words += ["--set", f"{section}.{name}={_typed(value)}"]
    return shlex.join(words)


def _typed(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
