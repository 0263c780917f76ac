"""The type checker of the test run: beartype, which sees jaxtyping's shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_STRICT = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the arguments and results of a function at each call.

    beartype knows `Self` only when it decorates the whole class, which jaxtyping's hook does not: such a method
    goes unchecked. As in PEP 484, an int is taken where a float is asked. While a graph is traced nothing is checked:
    its sizes are symbols, which are no ints.
    """
    try:
        strict = _STRICT(function)
    except BeartypeDecorHintPep673Exception:
        return function

    @functools.wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        return (function if torch.compiler.is_compiling() else strict)(*given, **named)

    return checked
