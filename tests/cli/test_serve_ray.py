"""``mtl.serve --engine ray``: the same answers from replicas on a local Ray."""

from __future__ import annotations

import http.client
import json
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl, process, refused
from ray_bench import alone

import mtl as face

MOOD, SAME = "mood/pfeiffer/seed0", "same/pfeiffer/seed0"
ROWS: dict[str, list[Any]] = {
    MOOD: ["every cat is happy today", "no dog is bad"],
    SAME: [["the cat sees a tree", "some cat"]],
}


def ask(port: int, body: Any, path: str = "/v1/predict") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "application/json"}
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


@pytest.mark.slow
def test_replicas_answer_as_one(trained: Path, mini: Path) -> None:
    pytest.importorskip("ray.serve")
    models = face.load_many([MOOD, SAME], zoo=trained)
    expected = {
        name: models.predict({name: [tuple(r) if isinstance(r, list) else r for r in rows]})[name]
        for name, rows in ROWS.items()
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        words = [MOOD, SAME, "--zoo", trained, "--port", 0, "--json"]
        words += ["--engine", "ray", "--replicas", 2]
        with process("serve", *words, **alone(folder)) as child:
            try:
                assert child.stdout is not None
                line = child.stdout.readline()
                assert line.startswith("{"), child.communicate(timeout=60)
                port = int(json.loads(line)["url"].rpartition(":")[2])
                with ThreadPoolExecutor(4) as pool:
                    one = list(
                        pool.map(
                            lambda name: ask(port, {"entry": name, "inputs": ROWS[name]}),
                            [MOOD, SAME] * 6,
                        )
                    )
                assert [status for status, _ in one] == [200] * 12
                for name, (_, said) in zip([MOOD, SAME] * 6, one, strict=True):
                    assert said["predictions"] == expected[name]
                status, both = ask(port, [{"entry": n, "inputs": r} for n, r in ROWS.items()])
                assert status == 200
                assert [item["predictions"] for item in both] == list(expected.values())
                status, said = ask(port, {"entry": "mood/pfeifer/seed0", "inputs": ["a"]})
                assert (status, said["error"]["code"]) == (404, "unknown_entry")
                status, said = ask(port, {"entry": SAME, "inputs": ["one text"]})
                assert (status, said["error"]["code"]) == (422, "cannot_answer")
                assert ask(port, None, "/readyz") == (200, {"status": "ok", "entries": 2})
            finally:
                child.send_signal(signal.SIGTERM)
                _, err = child.communicate(timeout=120)
            assert child.returncode == 0, err
            assert err.splitlines()[-1] == "all requests were answered"


def test_what_belongs_to_replicas(trained: Path, mini: Path, tmp_path: Path) -> None:
    where = [MOOD, "--zoo", trained]
    refused(mtl("serve", *where, "--replicas", 2), "--replicas belongs to --engine ray")
    refused(mtl("serve", *where, "--address", "a:1"), "--address belongs to --engine ray")
    refused(mtl("serve", *where, "--engine", "ray", "--replicas", 0), "at least 1")
    (tmp_path / "token").write_text("a-token-of-the-tests-0123456789")
    said = mtl("serve", *where, "--engine", "ray", "--token-file", tmp_path / "token")
    refused(said, "leave the token away")
