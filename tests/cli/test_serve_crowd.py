"""Clients of a server that are many, slow or gone: shared batches, and all that is bounded."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from serve_bench import (
    HAPPY,
    MOOD,
    SAME,
    SHARED,
    Running,
    entries,
    server,
    serving,
    slowed,
    until,
    zoo,
)

import mtl as face
from mtl.zoo import Entry, Zoo

__all__ = ["entries", "server", "zoo"]  # the fixtures


def test_requests_of_many_clients_share_batches(server: Running) -> None:
    sizes = slowed(server, 0.2)
    names = [MOOD, SAME, SHARED]
    rows: dict[str, list[Any]] = {MOOD: [HAPPY], SAME: [["a cat", "a dog"]], SHARED: [["a", "b"]]}
    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(lambda k: server.predict(names[k % 3], rows[names[k % 3]]), range(24)))
    assert [reply.status for reply in said] == [200] * 24
    assert [reply.json["task"] for reply in said] == ["mini/mood", "mini/same", "mini/shared"] * 8
    assert sum(sizes) == 24
    assert len(sizes) <= 10  # many waited while the first were answered
    assert server.metric("mtl_batch_entries_sum") > len(sizes)


def test_an_idle_server_waits_for_others_no_longer_than_its_latency(
    zoo: Zoo, entries: list[Entry]
) -> None:
    with serving(zoo, entries, latency=1.0, batch=2) as server:
        begun = time.monotonic()
        server.predict(MOOD, [HAPPY])
        assert 1.0 <= time.monotonic() - begun < 10
        begun = time.monotonic()
        server.predict(MOOD, [HAPPY, HAPPY])  # a full batch waits for nobody
        assert time.monotonic() - begun < 0.9


def test_overload_is_refused_and_what_was_taken_is_answered(zoo: Zoo, entries: list[Entry]) -> None:
    with serving(zoo, entries, batch=2, queue=4) as server:
        slowed(server, 0.4)
        with ThreadPoolExecutor(20) as pool:
            said = list(pool.map(lambda _: server.predict(MOOD, [HAPPY, HAPPY]), range(20)))
        taken = [reply for reply in said if reply.status == 200]
        busy = [reply for reply in said if reply.status == 429]
        assert len(taken) + len(busy) == 20
        assert len(taken) >= 2
        assert len(busy) >= 5
        assert all(reply.code == "busy" for reply in busy)
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in busy)
        assert server.predict(MOOD, [HAPPY]).status == 200  # and it is as before
        assert server.service.batcher.waiting == 0


def test_time_is_limited(zoo: Zoo, entries: list[Entry]) -> None:
    with serving(zoo, entries, timeout=0.5, batch=1, latency=0) as server:
        sizes = slowed(server, 1.5)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.predict, MOOD, [HAPPY])
            until(lambda: sizes)
            second = pool.submit(server.predict, MOOD, [HAPPY])
        assert (first.result().status, first.result().code) == (504, "too_long")
        assert (second.result().status, second.result().code) == (503, "busy")
        assert int(second.result().headers["retry-after"]) >= 1
        until(lambda: server.service.batcher.waiting == 0)
        assert len(sizes) == 1  # nobody waited for the second any more


def test_a_client_that_goes_away_costs_nobody_anything(server: Running) -> None:
    sizes = slowed(server, 0.5)
    body = json.dumps({"entry": MOOD, "inputs": [HAPPY]}).encode()
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.predict, MOOD, [HAPPY])
        until(lambda: sizes)
        for data in (whole, whole[:-5], whole[:40], b""):
            server.raw(data).close()
        until(lambda: server.metric("mtl_requests_total") >= 1)
        last = server.predict(SAME, [["a cat", "a dog"]])
    assert first.result().status == last.status == 200
    assert sum(sizes) == 2  # who was gone was not answered
    until(lambda: not server.service._pins)


def test_slow_clients_are_left(server: Running) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow = [
        server.raw(b""),
        server.raw(b"GET /healthz HTTP/1.1\r\nHost: loc"),
        server.raw(head + b"Content-Length: 100\r\n\r\n{"),
    ]
    assert server.predict(MOOD, [HAPPY]).status == 200  # nobody waits for them
    begun = time.monotonic()
    assert slow[0].recv(100) == b""
    assert slow[1].recv(100) == b""
    late = b"".join(iter(lambda: slow[2].recv(1000), b""))
    assert late.startswith(b"HTTP/1.1 408")
    assert b"too_slow" in late
    assert time.monotonic() - begun < 10
    until(lambda: not server.server.server_state.connections)


def test_who_does_not_read_answers_is_left(server: Running) -> None:
    """Thousands of requests on one connection, and not one answer is taken."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    made = server.raw(b"", receive=4096)

    def flood() -> None:
        with suppress(OSError):
            for _ in range(5000):
                made.sendall(ask)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    assert server.predict(MOOD, [HAPPY]).status == 200
    until(lambda: server.metric("mtl_requests_total") > 5)
    until(lambda: len(server.server.server_state.connections) <= 1, 30)
    assert server.predict(MOOD, [HAPPY]).status == 200


def test_connections_are_bounded(zoo: Zoo, entries: list[Entry]) -> None:
    with serving(zoo, entries, connections=8, reading=1.0) as server:
        for _ in range(40):
            server.raw(b"")
        time.sleep(0.2)
        with pytest.raises((AssertionError, OSError)):
            assert server.ask("GET", "/healthz").status == 200
        until(lambda: not server.server.server_state.connections)
        assert server.ask("GET", "/healthz").status == 200


def test_limited_memory_holds_who_was_asked_last(zoo: Zoo, entries: list[Entry]) -> None:
    models = face.load_many(entries, zoo=zoo)
    one = models.bytes // 3
    rows: dict[str, list[Any]] = {MOOD: [HAPPY], SAME: [["a", "b"]], SHARED: [["a", "b"]]}
    expected = {
        name: models.predict({name: [tuple(r) if isinstance(r, list) else r for r in value]})[name]
        for name, value in rows.items()
    }
    with serving(zoo, entries, memory=int(2.3 * one)) as server:
        held = server.service.models.entries
        assert len(held) == 2
        for name in (MOOD, SAME, SHARED, MOOD, MOOD, SHARED, SAME):
            said = server.predict(name, rows[name])
            assert said.json["predictions"] == pytest.approx(expected[name], abs=1e-5)
            assert len(held) <= 2
        assert {ref.split("/")[-3] for ref in held} == {"same", "shared"}
        listed = server.ask("GET", "/v1/entries").json["entries"]
        assert [item["loaded"] for item in listed] == [False, True, True]
        with ThreadPoolExecutor(9) as pool:
            said = list(pool.map(lambda name: server.predict(name, rows[name]), [*rows] * 6))
        assert {reply.status for reply in said} <= {200, 503}
        assert sum(reply.status == 200 for reply in said) >= 6
