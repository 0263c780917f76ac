"""Settings as frozen, plain values that refuse what they do not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from diptych.core.errors import UserError, unknown


class Config(BaseModel):
    """The choices of one model, of the trainer or of the data; every field has the default a newcomer wants."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from plain values, strings included (`"3e-4"` becomes a float).

        Raises:
            UserError: for a name that is not a field (the nearest is suggested) or a value out of its range.
        """
        for name in values:
            if name not in cls.model_fields:
                raise unknown("setting", name, cls.model_fields)
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "settings"
            raise UserError(f"setting {field}={first['input']!r} is not valid: {first['msg']}") from None
