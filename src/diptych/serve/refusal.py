"""Refusals: what a request gets instead of an answer, a status and one clear line."""

from __future__ import annotations

from diptych.core.errors import UserError
from diptych.data.images import BadPicture

_BY_KIND = {"too large": 413, "unknown": 415, "empty": 422, "missing": 404}


class Refusal(UserError):  # noqa: N818 - the request is refused, the server has no error
    """A request that is not served.

    Args:
        status: of HTTP.
        line: what was asked, what is allowed, what to do.
        retry: seconds after which to try again; None when that would not help.
    """

    def __init__(self, status: int, line: str, *, retry: int | None = None) -> None:
        super().__init__(line)
        self.status, self.retry = status, retry


def refusal_of(error: UserError) -> Refusal:
    """Turn a user's mistake into a refusal: 413, 415 or 422 for pictures, 422 for all else."""
    if isinstance(error, Refusal):
        return error
    status = _BY_KIND.get(error.kind, 422) if isinstance(error, BadPicture) else 422
    return Refusal(status, one_line(str(error)))


def one_line(text: str) -> str:
    """Bring a message to one line that every encoding can hold."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())[:500]
