"""What a server allows: sizes, times, how many requests at once, and who may ask."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from diptych.core.config import Config


class ServeSettings(Config):
    """Limits of a server; a request beyond one is refused with one line that names it."""

    token: str = Field(default="", repr=False, description="needed as `Authorization: Bearer TOKEN`; empty lets all in")
    hosts: tuple[str, ...] = Field(
        default=("*",), description="names by which the server may be called; others are refused"
    )
    max_mb: float = Field(default=20.0, gt=0, description="megabytes of a request's body at most")
    max_pixels: int = Field(default=50_000_000, ge=1, description="pixels of an uploaded picture at most")
    max_text: int = Field(default=1000, ge=1, description="characters of a text at most")
    max_labels: int = Field(default=100, ge=1, description="labels or texts of a request at most")
    max_pictures: int = Field(default=16, ge=1, description="pictures of a request at most")
    max_results: int = Field(default=200, ge=1, description="results of a search at most")
    seconds: float = Field(default=30.0, gt=0, description="a request may take, its upload included")
    waiting: int = Field(default=256, ge=1, description="requests in work at a time; more are told to come back")
    per_client: int = Field(default=100, ge=1, description="of them from one address")
    max_batch: int = Field(default=32, ge=1, description="texts or pictures that the model reads together at most")
    max_wait: float = Field(default=0.002, ge=0, description="seconds that a first one waits for others to join it")

    @property
    def max_bytes(self) -> int:
        """Return the bytes of a request's body at most."""
        return int(self.max_mb * 1_000_000)


def hosts_for(host: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which a server may be called.

    One that listens to its own machine alone is called by that machine's own names: a page of another host, whose name
    was bent to this machine meanwhile (DNS rebinding), must not read its pictures.

    Args:
        host: what it listens on.
        names: more names that the user gave.
    """
    own = ("localhost", "127.0.0.1", "[::1]")
    if host in ("localhost", "127.0.0.1", "::1"):
        return (*own, *(name.lower() for name in names))
    return tuple(name.lower() for name in names) or ("*",)
