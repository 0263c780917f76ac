"""Runs an app on a socket until it is told to stop; then it finishes what it has begun."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn
from fastapi import FastAPI

from diptych.core.errors import UserError

_GRACE = 5  # seconds more than a request may take


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on.

    Args:
        host: name or address.
        port: 0 takes a free one.

    Raises:
        UserError: when the port is in use, not allowed, or the host is not of this machine.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as undo:
            opened = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(place)
            opened.listen(128)
            undo.pop_all()
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot listen on {host}, port {port}: {why}; choose another with --port or --host") from None
    return opened


def serve_app(app: FastAPI, opened: socket.socket, *, seconds: float, announce: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C: requests in work are finished first; a second Ctrl-C does not wait for them.

    Args:
        app: to serve.
        opened: where.
        seconds: a request may take.
        announce: say that it serves; from then on a signal ends it in good order.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(seconds) + _GRACE,
        lifespan="on",
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: object) -> None:
        """End soon: uvicorn takes signals later than we say that we serve, and raises once more what it took."""
        server.should_exit = True

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, stop)
    announce()
    server.run(sockets=[opened])
