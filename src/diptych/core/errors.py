"""Mistakes of a user, told in one line: what, what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12
"""So many names are listed beside a suggestion; a longer list would hide it."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its one line and exits with status 2."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Say which allowed name was probably meant.

    Args:
        given: the name that is not known.
        allowed: every name that is.

    Returns:
        `"; did you mean 'clip'?"`, or `""` when nothing is near.
    """
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """Make the error for a name that is none of the allowed ones: the nearest is suggested, a short list is given."""
    names = sorted(allowed)
    near = nearest(given, names)
    rest = "" if near and len(names) > FEW else f" (allowed: {', '.join(names)})"
    return UserError(f"unknown {kind} {given!r}{near}{rest}")
