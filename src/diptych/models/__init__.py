"""Systems: one file each, found by its name; nothing is registered, nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from diptych.core.config import Config
from diptych.core.errors import UserError, unknown


def names() -> dict[str, str]:
    """Return the built-in systems and where each lives, by looking at the folders only.

    Returns:
        `{"clip": "diptych.models.align.clip", ...}`, sorted by name.
    """
    found = {}
    for family in pkgutil.iter_modules(__path__):
        if not family.ispkg:
            continue
        folder = Path(__file__).parent / family.name
        for module in pkgutil.iter_modules([str(folder)]):
            found[module.name] = f"{__name__}.{family.name}.{module.name}"
    return dict(sorted(found.items()))


def load(name: str) -> ModuleType:
    """Import a system by its name, or a user's own by its dotted module path.

    Returns:
        A module with a frozen `Config` and `build(config, spec) -> Model`.

    Raises:
        UserError: when there is no such system, or the module is not one.
    """
    known = names()
    if name not in known and "." not in name:
        raise unknown("system", name, known)
    try:
        module = importlib.import_module(known.get(name, name))
    except ModuleNotFoundError as error:
        if error.name is not None and known.get(name, name).startswith(error.name):
            raise UserError(f"no module {name!r} to load a system from; is it on PYTHONPATH?") from None
        raise
    config, build = getattr(module, "Config", None), getattr(module, "build", None)
    if not (isinstance(config, type) and issubclass(config, Config) and callable(build)):
        raise UserError(f"module {name!r} is no system: it must define a Config and build(config, spec)")
    return module
