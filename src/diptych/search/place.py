"""Where an index is: a folder, or an address of a server; `diptych.search.opening` opens either.

photos.index                                       a folder
milvus://host:19530/photos                         a collection; milvus+tls:// for an encrypted connection
postgresql://user:password@host:5432/base/photos   a table of a data base
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from diptych.core.errors import UserError, unknown

_SERVERS = {"milvus": "http", "milvus+tls": "https", "postgresql": "postgresql"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,50}")
_FORMS = "milvus://HOST:PORT/COLLECTION or postgresql://USER@HOST:PORT/BASE/TABLE"


@dataclass(frozen=True, slots=True)
class Place:
    """An index in a server."""

    kind: str
    url: str
    name: str
    user: str
    password: str
    shown: str

    @classmethod
    def parse(cls, address: str) -> Place | None:
        """Read an address; None for a folder.

        Raises:
            UserError: for a server of another kind, or an address that is not whole.
        """
        if "://" not in address:
            return None
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UserError(f"{address} is no address ({error}): give {_FORMS}") from None
        if parts.scheme not in _SERVERS:
            raise unknown("kind of server", parts.scheme, list(_SERVERS))
        *base, name = parts.path.strip("/").split("/")
        whole = len(base) == 1 if parts.scheme == "postgresql" else host and not base  # PostgreSQL may be a socket
        if not whole or not _NAME.fullmatch(name):
            raise UserError(
                f"{_without_password(parts)} is not the address of an index: give {_FORMS}, the last word of letters, "
                "digits and _"
            )
        scheme = _SERVERS[parts.scheme]
        net = parts.netloc if scheme == "postgresql" else f"{_bracketed(host or '')}:{port or 19530}"
        url = urlunsplit((scheme, net, "/".join(base), parts.query, ""))
        kind = "postgresql" if scheme == "postgresql" else "milvus"
        return cls(kind, url, name, parts.username or "", parts.password or "", _without_password(parts))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_password(parts: SplitResult) -> str:
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query=""))
