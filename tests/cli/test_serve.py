"""``mtl.serve``: many entries over HTTP, what is wrong is said, and how it begins and ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import tomllib
from cli_bench import ROOT, mtl, process, refused
from recommended import provoked, recommends
from serve_bench import (
    HAPPY,
    JSON,
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
from mtl.serve import Bounds
from mtl.zoo import Entry, Zoo

__all__ = ["entries", "server", "zoo"]  # the fixtures
TOKEN = "a-token-of-the-tests-0123456789"


def test_served_answers_are_those_of_the_models(server: Running, zoo: Zoo) -> None:
    inputs: dict[str, list[Any]] = {
        MOOD: [HAPPY, {"text": "no dog is bad"}["text"]],
        SAME: [["the cat sees a tree", "some cat"]],
        SHARED: [{"a": "tree house", "b": "tree river"}, {"a": "door", "b": "door"}],
    }
    for name, rows in inputs.items():
        said = server.predict(name, rows, scores=True)
        assert said.status == 200, said.body
        model = face.load(name, zoo=zoo)
        plain = [tuple(row) if isinstance(row, list) else row for row in rows]
        expected = model.predict(plain, scores=True)
        assert said.json["predictions"] == pytest.approx(expected.labels, abs=1e-5)
        for found, row in zip(said.json["scores"], expected.rows(), strict=True):
            assert found == pytest.approx(row["scores"], abs=1e-5)
        assert said.json["entry"].endswith(name) is False  # the whole reference, with its hash
    both = server.ask(
        "POST", "/v1/predict", [{"entry": name, "inputs": rows} for name, rows in inputs.items()]
    )
    assert [item["task"] for item in both.json] == ["mini/mood", "mini/same", "mini/shared"]
    assert [len(item["predictions"]) for item in both.json] == [2, 1, 2]
    assert "scores" not in both.json[0]


def test_it_says_what_it_serves_and_how_it_is(server: Running) -> None:
    listed = server.ask("GET", "/v1/entries").json["entries"]
    assert [item["name"] for item in listed] == [MOOD, SAME, SHARED]
    assert all(item["loaded"] and item["alone"] is None for item in listed)
    assert server.ask("GET", "/healthz").json == {"status": "ok"}
    assert server.ask("GET", "/readyz").json == {"status": "ok", "entries": 3}
    page = server.ask("GET", "/docs").body.decode()
    assert "POST /v1/predict" in page
    assert not re.search(r"https?://|<script", page)
    paths = server.ask("GET", "/openapi.json").json["paths"]
    assert set(paths) == {"/v1/predict", "/v1/entries", "/healthz", "/readyz", "/metrics"}
    server.predict(MOOD, [HAPPY] * 3)
    assert server.metric("mtl_rows_total") == 3
    assert server.metric("mtl_entries_loaded") == 3
    assert server.metric("mtl_entries_bytes") == server.service.models.bytes > 0


@pytest.mark.parametrize(
    ("body", "status", "code", "part"),
    [
        (b"", 422, "malformed", "/docs"),
        (b"{", 422, "malformed", "JSON"),
        (b"[" * 100_000, 400, "refused", "parsing the body"),
        (b"\xff\xfe", 422, "malformed", "JSON"),
        ({"entry": MOOD}, 422, "malformed", "inputs"),
        ({"entry": MOOD, "inputs": []}, 422, "malformed", "at least 1 item"),
        ({"entry": MOOD, "inputs": HAPPY}, 422, "malformed", "valid list"),
        ({"entry": MOOD, "inputs": [HAPPY], "scoers": True}, 422, "malformed", "scoers"),
        ({"entry": MOOD, "inputs": [[[[["a"]]]]]}, 422, "cannot_answer", "holds lists, not texts"),
        ({"entry": MOOD, "inputs": [None]}, 422, "malformed", "inputs"),
        ({"entry": MOOD, "inputs": ["\ud800"]}, 422, "cannot_answer", "cannot be made a table"),
        ({"entry": MOOD, "inputs": [{"txt": "a"}]}, 422, "cannot_answer", "no column 'text'"),
        ({"entry": SAME, "inputs": ["one text"]}, 422, "cannot_answer", "It reads 2 columns"),
        (
            {"entry": "mood/pfeifer/seed0", "inputs": [HAPPY]},
            404,
            "unknown_entry",
            "Did you mean 'mood/pfeiffer/seed0'",
        ),
        ({"entry": "../" * 100, "inputs": [HAPPY]}, 404, "unknown_entry", "no entry"),
        ({"entry": "x" * 401, "inputs": [HAPPY]}, 422, "malformed", "400 characters"),
        ({"entry": MOOD, "inputs": [HAPPY], "task": "mini/no"}, 422, "cannot_answer", "mini/mood"),
        ([], 422, "no_request", "at least one"),
        (
            [{"entry": MOOD, "inputs": [HAPPY]}, {"entry": SAME, "inputs": ["a"]}],
            422,
            "cannot_answer",
            "request 1, ",
        ),
        ({"entry": MOOD, "inputs": [HAPPY] * 257}, 422, "cannot_answer", "at most 256"),
        ([{"entry": MOOD, "inputs": [HAPPY]}] * 257, 422, "too_many", "at most 256"),
        ({"entry": MOOD, "inputs": ["a" * 20_001]}, 422, "cannot_answer", "reads 32 tokens"),
        (b" " * ((1 << 20) + 1), 413, "too_large", "1,048,576 bytes"),
    ],
)
def test_what_is_wrong_is_said(
    body: Any, status: int, code: str, part: str, server: Running
) -> None:
    said = server.ask("POST", "/v1/predict", body)
    assert (said.status, said.code) == (status, code), said.body
    assert part in said.json["error"]["message"]
    assert server.predict(MOOD, [HAPPY]).status == 200


def test_other_ways_to_be_wrong(server: Running) -> None:
    assert server.ask("GET", "/nowhere").code == "refused"
    assert server.ask("PUT", "/v1/predict", {}).status == 405
    plain = server.ask("POST", "/v1/predict", {}, {"Content-Type": "text/plain"})
    assert (plain.status, plain.code) == (415, "not_json")
    foreign = server.ask("GET", "/v1/entries", headers={"Host": "a-page.example"})
    assert (foreign.status, foreign.code) == (421, "wrong_host")
    long = server.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)
    assert long.recv(100).startswith(b"HTTP/1.1 400")
    assert server.raw(b"\x16\x03\x01\x00\xff" * 20).recv(100).startswith(b"HTTP/1.1 400")
    # chunks that say no length beforehand
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    made = server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n")
    with suppress(OSError):  # it stops to read
        for _ in range(40):
            made.sendall(chunk)
    assert made.recv(100).startswith(b"HTTP/1.1 413")
    assert server.predict(MOOD, [HAPPY]).status == 200


def test_a_long_text_is_cut_as_the_task_says(server: Running, zoo: Zoo) -> None:
    text = "the old cat " * 400
    assert len(text) > 4000
    expected = face.load(MOOD, zoo=zoo).predict([text], scores=True).rows()
    said = server.predict(MOOD, [text], scores=True).json
    assert said["predictions"] == [expected[0]["prediction"]]
    assert said["scores"][0] == pytest.approx(expected[0]["scores"], abs=1e-5)


def test_one_bad_request_of_a_batch_spoils_no_other(server: Running) -> None:
    answer = server.service.batcher._answer
    begun = threading.Event()

    def odd(asked: Any) -> Any:
        begun.set()
        time.sleep(0.3)
        if any("/same/" in item.ref for item in asked):
            raise ValueError("a defect")
        return answer(asked)

    server.service.batcher._answer = odd
    rows: list[tuple[str, list[Any]]] = [(MOOD, [HAPPY]), (SAME, [["a", "b"]]), (MOOD, [HAPPY])]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(server.predict, MOOD, [HAPPY])
        assert begun.wait(30)
        said = list(pool.map(lambda item: server.predict(*item), rows))
    assert first.result().status == 200
    assert [reply.status for reply in said] == [200, 500, 200]
    assert said[1].code == "failed"
    assert "a defect" not in said[1].body.decode()


def test_entries_come_and_go_by_token(zoo: Zoo, entries: list[Entry]) -> None:
    mood = [entry for entry in entries if "/mood/" in entry.ref]
    with serving(zoo, mood) as closed:
        for method, path, body in (
            ("POST", "/v1/entries", {"entry": SAME}),
            ("DELETE", f"/v1/entries?entry={MOOD}", None),
        ):
            said = closed.ask(method, path, body)
            assert (said.status, said.code) == (403, "closed")
    key = {**JSON, "Authorization": f"Bearer {TOKEN}"}
    with serving(zoo, mood, token=TOKEN) as server:
        wrong = {**JSON, "Authorization": "Bearer nothing"}
        for headers in (JSON, wrong, {**JSON, "Authorization": ""}):
            said = server.ask("POST", "/v1/entries", {"entry": SAME}, headers)
            assert (said.status, said.code) == (401, "no_token")
        assert server.predict(SAME, [["a", "b"]]).status == 404
        said = server.ask("POST", "/v1/entries", {"entry": SAME}, key)
        assert said.status == 200, said.body
        assert server.predict(SAME, [["a", "b"]]).status == 200
        for name in ("../same", "/etc/passwd", "hub:user/x", "a b", "", ".", "x" * 300, "no/such"):
            said = server.ask("POST", "/v1/entries", {"entry": name}, key)
            assert said.status == 422, (name, said.body)
        sizes = slowed(server, 0.4)
        with ThreadPoolExecutor(1) as pool:
            flying = pool.submit(server.predict, SAME, [["a", "b"]])
            until(lambda: sizes)
            said = server.ask("DELETE", f"/v1/entries?entry={SAME}", headers=key)
            assert said.json["loaded"] is False
            assert server.predict(SAME, [["a", "b"]]).status == 404
        assert flying.result().status == 200  # what was in flight is answered
        until(lambda: len(server.service.models.entries) == 1)
        assert server.predict(MOOD, [HAPPY]).status == 200
        assert server.ask("DELETE", "/v1/entries?entry=no", headers=key).status == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_all_is_answered(
    number: signal.Signals, zoo: Zoo, entries: list[Entry]
) -> None:
    words = [MOOD, SAME, "--zoo", zoo.root, "--port", "0", "--latency", "1500", "--json"]
    with process("serve", *words) as child:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        assert (told["command"], told["alone"]) == ("serve", {})
        port = int(told["url"].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"entry": MOOD, "inputs": [HAPPY]})
        connection.request("POST", "/v1/predict", body, JSON)
        time.sleep(0.5)  # it waits for others to share its pass
        child.send_signal(number)
        answered = connection.getresponse()
        assert answered.status == 200
        assert json.loads(answered.read())["predictions"][0] in {"sad", "happy"}
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert out == ""
        assert "2 entries on http://127.0.0.1" in err
        assert err.splitlines()[-1] == "all requests were answered"


def test_what_a_command_line_has_wrong(
    zoo: Zoo, entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--zoo", zoo.root]
    refused(mtl("serve", *where), "Name the entries to serve", "--all")
    refused(mtl("serve", MOOD, "--all", *where), "one of the two")
    refused(mtl("serve", "mood/pfeifer/seed0", *where), "Did you mean 'mood/pfeiffer/seed0'")
    refused(mtl("serve", MOOD, "--base", "x", *where), "--base belongs to --all")
    refused(mtl("serve", "--all", "--base", "no-such", *where), "no entry of base no-such")
    refused(mtl("serve", MOOD, "--queue", "0", *where), "queue=0 must be above 0")
    refused(mtl("serve", MOOD, "--batch", "64", "--queue", "8", *where), "more than queue=8")
    refused(mtl("serve", MOOD, "--token-file", tmp_path / "none", *where), "--token-file")
    refused(mtl("serve", MOOD, "--port", 1 << 16, *where), "--port 65536 must be from 0")
    refused(mtl("serve", MOOD, "--port", -1, *where), "--port -1 must be from 0")
    (tmp_path / "token").write_text("short\n")
    refused(mtl("serve", MOOD, "--token-file", tmp_path / "token", *where), "16 ASCII characters")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = mtl("serve", MOOD, "--port", taken.getsockname()[1], *where)
        refused(said, "Cannot listen on 127.0.0.1", "--port", code=1)
    listed = mtl("serve", "--all", "--dry-run", "--json", *where).json
    assert listed["entries"] == [entry.ref for entry in entries]
    assert Bounds().memory == 0


@recommends("cli/serve.py", "which is not installed")
def test_what_is_not_installed_is_named(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = mtl("serve", MOOD, "--zoo", zoo.root)
    message = provoked(said.err, "cli/serve.py", "which is not installed")
    words = message.partition("pip install ")[2].strip().rstrip(".").split()
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [line.partition(">=")[0] for line in ours["serve"]] == words
    for word in words:  # that a package index has them: they are those that the tests run with
        assert distribution(word).version
