"""The guard before every request: who may ask, how much, how many at once and how long; it also counts and logs."""

from __future__ import annotations

import asyncio
import hmac
import json
import uuid
from collections import Counter
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.serve.refusal import Refusal
from diptych.serve.settings import ServeSettings
from diptych.serve.telemetry import LOG, Telemetry

_OPEN = ("/static/", "/health/")
_OPEN_PAGES = frozenset(("/", "/docs", "/openapi.json"))
_API = "/api/"
_DRAIN_SECONDS = 2.0
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'",
    ),
)
"""Sent with every answer; the page may load nothing from another host."""


class Exchange:
    """One request and its answer as they pass by, counted; `refusal` takes the place of what the app would say."""

    def __init__(self, receive: Receive, send: Send, *, max_bytes: int) -> None:
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self.id = uuid.uuid4().hex[:16]
        self.came = self.went = 0
        self.status = 0
        self.whole = False
        self.refusal: Refusal | None = None

    async def receive(self) -> Message:
        """Pass on what comes in, up to the size allowed."""
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        self.came += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if self.came > self._max_bytes:
            self.refusal = too_large(self._max_bytes)
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Pass on what goes out, unless the request was refused meanwhile."""
        if self.refusal is not None and self.status == 0:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], *HEADERS, (b"x-request-id", self.id.encode())]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-cache"))
            message["headers"] = headers
        self.went += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with one line, as long as nothing was answered yet."""
        self.refusal = None
        if self.status != 0:
            return
        body = json.dumps({"error": str(refusal)}, ensure_ascii=False).encode("utf-8", "replace")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refusal.retry is not None:
            headers.append((b"retry-after", str(refusal.retry).encode()))
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if not self.whole:
            headers.append((b"connection", b"close"))  # the rest of the body is not waited for
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
        await self._drain()

    async def _drain(self) -> None:
        """Read a little more of what is still coming: a client that is cut off while it sends never sees the answer."""
        most, end = self.came + self._max_bytes, asyncio.get_running_loop().time() + _DRAIN_SECONDS
        while not self.whole and self.came < most and asyncio.get_running_loop().time() < end:
            try:
                async with asyncio.timeout_at(end):
                    message = await self._receive()
            except TimeoutError:
                return
            if message["type"] != "http.request":
                return
            self.came += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)


class Guard:
    """Middleware around the whole app.

    Args:
        app: what it guards.
        settings: the limits.
        telemetry: what counts.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, telemetry: Telemetry) -> None:
        self.app, self.settings, self.telemetry = app, settings, telemetry
        self._active: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = perf_counter()
        exchange = Exchange(receive, send, max_bytes=self.settings.max_bytes)
        try:
            await self._answer(scope, exchange)
        finally:
            self._tell(scope, exchange, perf_counter() - start)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await exchange.refuse(refusal)
            return
        client = _client(scope)
        self._active[client] += 1
        self.telemetry.active.inc()
        try:
            async with asyncio.timeout(self.settings.seconds):
                await self.app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            exchange.refusal = self._late(exchange)
        except Exception:
            if exchange.refusal is None:
                LOG.exception("failed", {"id": exchange.id, "path": scope["path"]})
                exchange.refusal = Refusal(500, f"something went wrong here; the log tells what, under {exchange.id}")
        finally:
            self.telemetry.active.dec()
            self._active[client] -= 1
            if not self._active[client]:
                del self._active[client]
        if exchange.refusal is not None:
            await exchange.refuse(exchange.refusal)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Say why a request is not even looked at."""
        headers, path, settings = dict(scope["headers"]), scope["path"], self.settings
        if "*" not in settings.hosts and _host(headers.get(b"host", b"")) not in settings.hosts:
            return Refusal(421, f"this server is not called so; it listens to {', '.join(settings.hosts)}")
        if settings.token and not (path in _OPEN_PAGES or path.startswith(_OPEN)):
            given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
            if not hmac.compare_digest(given, settings.token.encode()):
                return Refusal(401, "this server asks for a token: send it as Authorization: Bearer TOKEN")
        if not path.startswith(_API):
            return None
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > settings.max_bytes:
            return too_large(settings.max_bytes)
        if self._active.total() >= settings.waiting:
            return Refusal(503, f"{settings.waiting} requests are in work already: try again in a moment", retry=2)
        if self._active[_client(scope)] >= settings.per_client:
            return Refusal(429, f"{settings.per_client} requests of yours are in work already: wait for them", retry=1)
        return None

    def _late(self, exchange: Exchange) -> Refusal:
        if not exchange.whole:
            return Refusal(408, f"the request was not complete after {self.settings.seconds:g} seconds: send less")
        return Refusal(504, f"no answer within {self.settings.seconds:g} seconds: ask for less, or later", retry=5)

    def _tell(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        route = scope.get("route")
        path = route.path if route is not None else "other"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        self.telemetry.requests.labels(path, method, exchange.status or 499).inc()
        self.telemetry.seconds.labels(path).observe(seconds)
        if path.startswith("/health") or path == "/metrics":
            return
        LOG.info(
            "request",
            {
                "id": exchange.id,
                "client": _client(scope),
                "method": method,
                "path": scope["path"][:200],
                "status": exchange.status or 499,  # 499: the client went away
                "ms": round(seconds * 1000, 1),
                "in": exchange.came,
                "out": exchange.went,
            },
        )


def too_large(max_bytes: int) -> Refusal:
    """Refuse a body by its size."""
    return Refusal(413, f"the request is larger than the {max_bytes / 1_000_000:g} MB allowed: send less, or smaller")


def _host(header: bytes) -> str:
    """Return the name in a Host header, without its port."""
    name = header.decode("latin-1").lower()
    return name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"
