"""A server in a thread of this process, and clients of all sorts on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mtl.runs.workspace import open_workspace
from mtl.serve import Bounds, Service
from mtl.serve.app import build_app
from mtl.serve.running import listen, make_server
from mtl.zoo import Entry, Zoo, open_zoo

JSON = {"Content-Type": "application/json"}
MOOD, SAME, SHARED = "mood/pfeiffer/seed0", "same/pfeiffer/seed0", "shared/pfeiffer/seed0"
HAPPY = "every cat is happy today"


@dataclass
class Reply:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Running:
    """A server that runs, and how to ask it."""

    service: Service
    server: Any
    port: int
    kept: list[Any] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, raw, headers if headers is not None else JSON)
            found = connection.getresponse()
            named = {key.lower(): value for key, value in found.getheaders()}
            return Reply(found.status, named, found.read())
        finally:
            connection.close()

    def predict(self, entry: str, inputs: Sequence[Any], **more: Any) -> Reply:
        return self.ask("POST", "/v1/predict", {"entry": entry, "inputs": inputs, **more})

    def raw(self, data: bytes, receive: int = 0) -> socket.socket:
        """A connection on which ``data`` was sent; ``receive``: bytes that its buffer holds."""
        made = socket.socket()
        if receive:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        made.settimeout(60)
        made.connect(("127.0.0.1", self.port))
        made.sendall(data)
        self.kept.append(made)
        return made

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.split("{")[0] == name or line.startswith(f"{name} ")
        )


def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until ``condition()``; fail if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@contextmanager
def serving(
    zoo: Zoo, entries: Sequence[Entry], *, token: str = "", **bounds: Any
) -> Iterator[Running]:
    """A server for ``entries`` of ``zoo``."""
    limits = Bounds(**bounds)
    service = Service(open_workspace(zoo=zoo.root), limits)
    service.serve(entries)
    sock = listen("127.0.0.1", 0)
    begun = threading.Event()
    hosts = ["127.0.0.1", "localhost"]
    server = make_server(build_app(service, token=token, hosts=hosts), limits, begun.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    assert begun.wait(60)
    running = Running(service, server, sock.getsockname()[1])
    try:
        yield running
    finally:
        for made in running.kept:
            made.close()
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        assert not service.batcher._thread.is_alive()


@pytest.fixture
def zoo(trained: Path, mini: Path) -> Zoo:
    return open_zoo(trained)


@pytest.fixture
def entries(zoo: Zoo) -> list[Entry]:
    return zoo.entries()


@pytest.fixture
def server(zoo: Zoo, entries: list[Entry]) -> Iterator[Running]:
    with serving(zoo, entries, reading=1.0) as found:
        yield found


def slowed(server: Running, seconds: float) -> list[int]:
    """Have every batch take ``seconds`` more; returns the sizes of batches as they begin."""
    answer, sizes = server.service.batcher._answer, []

    def slow(asked: Any) -> Any:
        sizes.append(len(asked))
        time.sleep(seconds)
        return answer(asked)

    server.service.batcher._answer = slow
    return sizes
