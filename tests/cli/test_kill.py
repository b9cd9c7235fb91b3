"""``kill -9`` in the middle of a run, the same line again: the entry of an unbroken run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import digests, leftovers, mtl, process

LINES = {
    "train": ["--suite", "mini", "--task", "mood", "--seeds", "11"],
    "compose": ["--target", "same", "--seeds", "11", "--method", "scalearn"],
    "compose gated": ["--target", "same", "--seeds", "11", "--method", "gated"],
    "compose by group": ["--target", "same", "--seeds", "11", "--gate", "b"],
}
COMMON = ["--epochs", "60", "--set", "head=two_layer"]


def kill_when(reached: Callable[[], bool], command: str, line: list[str]) -> None:
    """Start the command, kill it once ``reached()``; it must not be done before."""
    worker = process(command, *line, MTL_RESUME_SECONDS="0")
    deadline = time.monotonic() + 120
    while worker.poll() is None and not reached():
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.002)
    os.kill(worker.pid, signal.SIGKILL)
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == -signal.SIGKILL, (out, err)


@pytest.mark.parametrize("name", list(LINES))
def test_killed_twice_and_run_again_is_an_unbroken_run(
    name: str, stocked: Path, tmp_path: Path
) -> None:
    command, line = name.partition(" ")[0], [*LINES[name], *COMMON]
    before = digests(stocked)
    runs = tmp_path / "runs"

    def events() -> list[str]:
        found = list(runs.glob("*/events.jsonl"))
        return found[0].read_text().splitlines() if found else []

    kill_when(lambda: len(events()) >= 1, command, line)
    assert digests(stocked) == before
    state = mtl(command, *line, "--dry-run", "--json").json["runs"][0]["state"]
    assert state == "interrupted"
    reached = len(events())
    assert 1 <= reached < 60
    kill_when(lambda: len(events()) >= reached + 3, command, line)
    assert digests(stocked) == before
    assert len(events()) < 60
    first = events()[0]
    said = mtl(command, *line, "--json")
    assert said.code == 0, said
    broken = said.json["runs"][0]
    assert broken["status"] == "done"
    assert events()[0] == first  # with its time: the run went on, it did not start anew
    resumed = [json.loads(text) for text in events()]

    # The same run without a kill, in another zoo (which needs the sources, too).
    other = tmp_path / "other"
    shutil.copytree(stocked, other)
    shutil.rmtree(other / broken["ref"])
    whole = mtl(command, *line, "--zoo", other, "--runs", tmp_path / "whole", "--json")
    assert whole.code == 0, whole
    unbroken = whole.json["runs"][0]
    assert unbroken["status"] == "done"
    assert unbroken["ref"] == broken["ref"]
    assert unbroken["digest"] == broken["digest"]
    assert digests(other) == digests(stocked)
    (path,) = (tmp_path / "whole").glob("*/events.jsonl")
    expected = [json.loads(text) for text in path.read_text().splitlines()]
    timeless = [
        [{k: v for k, v in event.items() if "second" not in k and "time" not in k} for event in run]
        for run in (resumed, expected)
    ]
    assert timeless[0] == timeless[1]
    assert not leftovers(stocked)


@pytest.mark.parametrize("command", ["train", "compose"])
@pytest.mark.parametrize("limit", [300, 2_000, 20_000])
def test_a_disk_that_is_full_stores_nothing_and_the_next_try_does(
    command: str, limit: int, stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No file may grow beyond the limit: the system answers as it does on a full disk.
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    line = [*LINES[command], "--epochs", "2"]
    before = digests(stocked)
    whole = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, whole[1]))
    try:
        said = mtl(command, *line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    assert said.code == 1, said
    assert said.err.count("error: ") == 1, said.err
    assert "Cannot write" in said.err
    assert "run the same command again" in said.err
    assert digests(stocked) == before
    assert not leftovers(stocked)
    again = mtl(command, *line, "--json")
    assert again.code == 0, again
    assert len(digests(stocked)) == len(before) + 1
