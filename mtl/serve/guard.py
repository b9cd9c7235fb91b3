"""What stands before the application: bodies that are too large or too slow, foreign hosts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.serve.bounds import Bounds
    from mtl.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


DRAINED = 4
"""A body that is said to have so many times the bytes that are taken is read before it is refused,
that the client sees why; of a larger one the connection is closed."""


class Guard:
    """An ASGI application around another one: it hands over whole bodies within bounds.

    Args:
        hosts: names that a request may be for, without port; None for any. Of a server on
            loopback only its own: else a page of a stranger, whose name leads to 127.0.0.1, could
            read answers.
        paths: what is counted by its path; anything else is "other".
    """

    def __init__(
        self,
        app: App,
        bounds: Bounds,
        metrics: Metrics,
        hosts: Sequence[str] | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        self.app, self.bounds, self.metrics = app, bounds, metrics
        self.hosts, self.paths = hosts, paths

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            return
        begun, status = time.monotonic(), [500]

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        path = scope["path"] if scope["path"] in self.paths else "other"
        try:
            await self._pass(scope, receive, noted)
        finally:
            self.metrics.requests.labels(path, str(status[0])).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - begun)

    async def _pass(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {key.lower(): value for key, value in scope["headers"]}
        host = _host(headers.get(b"host", b"").decode("latin-1"))
        if self.hosts is not None and host not in self.hosts:
            said = f"This server answers requests for {' or '.join(self.hosts)}, not {host[:80]!r}."
            await refuse(send, 421, "wrong_host", f"{said} Start it with --host to change that.")
            return
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip()
            if kind.lower() != "application/json":
                said = f"The body is said to be {kind[:80]!r}; send JSON, and the header"
                await refuse(send, 415, "not_json", f"{said} Content-Type: application/json.")
                return
        try:
            length = int(headers.get(b"content-length", b"0"))
        except ValueError:
            length = 0  # the protocol refuses what is no number; what comes is counted all the same
        most = self.bounds.body
        said = f"The body has more than {most:,} bytes; send several requests."
        if length > most:
            if length <= DRAINED * most:  # most clients write all of it before they read an answer
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(_passed_over(receive), self.bounds.reading)
            await refuse(send, 413, "too_large", said)
            return
        try:
            body = await asyncio.wait_for(_whole(receive, most), self.bounds.reading)
        except asyncio.TimeoutError:
            late = f"The request did not arrive within {self.bounds.reading:g} s; send it at once."
            await refuse(send, 408, "too_slow", late)
            return
        if body is None:
            return
        if len(body) > most:
            await refuse(send, 413, "too_large", said)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


async def _whole(receive: Receive, most: int) -> bytes | None:
    """The body, or the beginning of one of more than ``most`` bytes; None: the client is gone."""
    body = bytearray()
    while len(body) <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return bytes(body)


async def _passed_over(receive: Receive) -> None:
    """Read the body and keep nothing of it."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


def _host(value: str) -> str:
    """``127.0.0.1:8000`` → ``127.0.0.1``, ``[::1]:8000`` → ``::1``."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0].lower()


async def refuse(send: Send, status: int, code: str, message: str) -> None:
    """Answer with an error, and close the connection: its rest is not read."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
