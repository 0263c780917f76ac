"""Settings as frozen, plain values that refuse what they do not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from diptych.core.errors import UserError, unknown


class Config(BaseModel):
    """The choices of one model, of the trainer or of the data; every field has the default a newcomer wants.

    The config of a system also says what it `learns`: the kind of task in `diptych.tasks`, or a module path.
    """

    learns: ClassVar[str] = ""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from plain values, strings included: "3e-4" is a float, "2,2,2" a tuple, "a:1,b:2" a mapping.

        Raises:
            UserError: for a name that is not a field (the nearest is suggested) or a value out of its range.
        """
        for name in values:
            if name not in cls.model_fields:
                raise unknown("setting", name, cls.model_fields)
        plain = {name: _split(name, value, cls.model_fields[name].annotation) for name, value in values.items()}
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "settings"
            raise UserError(f"setting {field}={first['input']!r} is not valid: {first['msg']}") from None


def _split(name: str, value: Any, kind: Any) -> Any:
    """Split a typed word at its commas where a tuple is wanted, and its parts at their colons where a mapping is."""
    if not isinstance(value, str) or get_origin(kind) not in (tuple, dict):
        return value
    parts = [part.strip() for part in value.strip("()[]{} ").split(",") if part.strip()]
    if get_origin(kind) is tuple:
        return parts
    pairs = [part.partition(":") for part in parts]
    if not all(colon for _, colon, _ in pairs):
        raise UserError(f"setting {name}={value!r} is not valid: give names with their values, such as {name}=a:1,b:2")
    return {key.strip(" \"'"): told.strip() for key, _, told in pairs}
