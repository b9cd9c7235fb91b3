"""The server itself: a socket, connections that may not be slow, a graceful end."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mtl.errors import RunError

if TYPE_CHECKING:
    from mtl.serve.bounds import Bounds


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose client is too slow.

    ``seconds`` are given for the head of a request, and for reading on where an answer does not
    fit into the buffers any more. Bodies are bounded by :class:`mtl.serve.guard.Guard`, and
    connections that wait for their next request by ``timeout_keep_alive`` of uvicorn.
    """

    seconds = 10.0
    _head: Any = None
    _blocked: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect()  # the beginning of a head, and not all of it
        elif self.conn.their_state is not h11.IDLE:
            self._head = self._cancelled(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._blocked = self._cancelled(self._head), self._cancelled(self._blocked)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked = self._cancelled(self._blocked)

    def _cancelled(self, timer: Any) -> Any:
        if timer is not None:
            timer.cancel()
        return None

    def _expect(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.seconds, self.transport.abort)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host``; port 0 takes a free one.

    Raises:
        RunError: the name is unknown, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise RunError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Take another one with "
            "--port (0 takes a free one), or --host."
        ) from error
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_server(app: Any, bounds: Bounds, begun: Callable[[], None]) -> uvicorn.Server:
    """A server for ``app``; ``begun`` is called when it takes requests."""
    protocol = type("Protocol", (BoundedProtocol,), {"seconds": bounds.reading})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=bounds.connections,
        timeout_graceful_shutdown=int(bounds.timeout + bounds.reading) + 1,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            begun()

    return Server(config)


def run(app: Any, bounds: Bounds, sock: socket.socket, begun: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is in flight; a second signal ends at once.

    Args:
        begun: called when requests are taken.
    """
    make_server(app, bounds, begun).run(sockets=[sock])
