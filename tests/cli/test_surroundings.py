"""What a shell may bring along: encodings, paths, a launcher's variables, signals."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_bench import digests, entries, leftovers, mtl, refused

from mtl.cli.leaving import telling
from mtl.cli.main import dispatch


def spoken(
    encoding: str, monkeypatch: pytest.MonkeyPatch, command: str, *argv: object
) -> tuple[int, str, str]:
    """Exit code and what a terminal of ``encoding`` shows."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = dispatch(command, [str(item) for item in argv])
        for stream in streams:
            stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    return code, out, err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_output_never_fails_for_its_encoding(
    encoding: str, stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = list(digests(stocked))
    lines = (
        ("zoo", "ls"),
        ("zoo", "ls", "--json"),
        ("zoo", "show", refs[0]),
        ("zoo", "diff", refs[0], refs[1]),
        ("report", "--suite", "mini"),
        ("methods", "ls"),
        ("tasks", "ls"),
    )
    for line in lines:
        code, out, err = spoken(encoding, monkeypatch, *line)
        assert (code, err) == (0, ""), (line, err)
        assert out
        if "--json" in line:
            json.loads(out)
    code, out, _ = spoken(encoding, monkeypatch, "report", "--suite", "mini")
    assert ("±" if encoding != "ascii" else "+/-") in out
    rows = [f"Δ {k} שלום 🙂,{('כן', 'לא')[k % 2]}" for k in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    made = tmp_path / "own.yaml"
    line = ["new", "own/words", "--from", tmp_path / "own.csv", "--out", made]
    code, out, err = spoken(encoding, monkeypatch, "tasks", *line)
    assert code == 0, err
    assert "כן" in made.read_text(encoding="utf-8")
    assert ("כן" if encoding == "utf-8" else r"\u05db\u05df") in out
    code, out, err = spoken(encoding, monkeypatch, "tasks", "check", made)
    assert "Traceback" not in out + err
    code, _, err = spoken(encoding, monkeypatch, "zoo", "show", "\udc80שלום")
    assert code != 0
    assert err.startswith("error: ")


LONG = "x" * 5000
LINES = {
    "MTL_ZOO": ["zoo", "ls"],
    "MTL_TASKS": ["tasks", "ls"],
    "MTL_RUNS": ["train", "--suite", "mini", "--dry-run"],
    "MTL_CACHE": ["zoo", "ls"],
    "MTL_DATA_ROOT": ["train", "--suite", "mini", "--dry-run"],
    "MTL_MODEL": ["train", "--suite", "mini", "--dry-run"],
    "MTL_GRAPH": ["graph", "build"],
}


@pytest.mark.parametrize("value", ["~nouser/x", LONG, f"{'x/' * 3000}y"])
@pytest.mark.parametrize("name", list(LINES))
def test_a_variable_that_can_be_no_path(
    name: str, value: str, stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    said = mtl(*LINES[name])
    refused(said, name, "is no path that can be here")
    assert len(said.err) < 400


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "abc"}, "RANK='abc'"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 says that a launcher"),
    ],
)
def test_a_launcher_that_is_none(
    variables: dict[str, str], said: str, mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused(mtl("train", "--suite", "mini", "--task", "mood"), said, "accelerate launch")


def test_a_rank_alone_silences_nothing(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler's RANK is no launcher's: this process is the only one, and speaks."""
    monkeypatch.setenv("RANK", "1")
    assert "mini/mood" in mtl("train", "--suite", "mini", "--dry-run").out


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "the terminal was closed")],
)
def test_told_to_leave_while_an_entry_is_written(
    number: int, code: int, word: str, mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message, the code of a shell, nothing half-written; the next one goes on where it was."""
    import mtl.runs.store as store

    line = ["--suite", "mini", "--task", "mood", "--max-steps", "3"]
    found: list[Any] = []

    def told(folder: Path, *_: Any) -> None:
        found.append(folder)
        assert folder.is_dir()
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_predictions", told)
        said = mtl("train", *line)
    assert found
    assert (said.code, said.out) == (code, "")
    assert said.err == f"{word}; run the same command again to go on\n"
    assert not leftovers(mini)
    assert not entries(mini)
    assert signal.getsignal(number) is signal.SIG_DFL
    dry = mtl("train", *line, "--dry-run", "--json").json
    assert dry["runs"][0]["state"] == "interrupted"
    assert mtl("train", *line).code == 0


def test_who_ignores_a_signal_keeps_ignoring_it() -> None:
    """``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with telling():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
