"""Several workers on one list of runs: who is at what, who waits, who goes on for one that died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import TARGET, digests, mtl, process

from mtl.errors import HeldError
from mtl.files import locked

LONG = ["--suite", "mini", "--set", "head=two_layer", "--epochs", "150", "--seeds", "11", "--task"]


def until(reached: Callable[[], bool], worker: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.002)


def training(runs: Path) -> bool:
    return any(path.stat().st_size for path in runs.glob("*/events.jsonl"))


def test_two_workers_share_a_sweep_and_neither_fails(mini: Path, tmp_path: Path) -> None:
    first = process("train", *LONG, "mood", "shared", "--json")
    until(lambda: training(tmp_path / "runs"), first)
    held = mtl("train", *LONG, "mood", "--json")
    assert held.code == 0, held
    (row,) = held.json["runs"]
    assert row["status"] == "elsewhere"
    assert row["held_by"].startswith(f"process {first.pid} on ")
    assert "error" not in row
    table = mtl("train", *LONG, "mood")
    assert (table.code, table.err) == (0, "")
    assert "elsewhere" in table.out
    assert f"1 run is with process {first.pid}" in table.out
    # with --wait it does what is left, and then takes what the other one made
    second = mtl("train", *LONG, "mood", "shared", "--wait", "--json")
    assert second.code == 0, second
    assert first.wait(timeout=120) == 0
    assert first.stdout is not None
    (line,) = first.stdout.readlines()
    both = [json.loads(line)["runs"], second.json["runs"]]
    made = [[row["status"] for row in rows] for rows in both]
    assert made[1][0] == "skipped"
    assert {row["digest"] for row in both[1]} == set(digests(mini).values())
    assert len(digests(mini)) == 2


def test_waiting_for_one_that_dies_goes_on_with_its_run(mini: Path, tmp_path: Path) -> None:
    line = [*LONG, "mood"]
    first = process("train", *line, MTL_RESUME_SECONDS="0")
    until(lambda: training(tmp_path / "runs"), first)
    (events,) = (tmp_path / "runs").glob("*/events.jsonl")
    begun = events.read_text().splitlines()[0]
    second = process("train", *line, "--wait", "--json", MTL_QUIET="")
    time.sleep(0.5)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    (row,) = json.loads(out)["runs"]
    assert row["status"] == "done"
    assert events.read_text().splitlines()[0] == begun  # it went on, it did not start anew
    assert list(digests(mini).values()) == [row["digest"]]


def test_sources_that_are_trained_elsewhere(mini: Path, tmp_path: Path) -> None:
    line = ["--target", "same", "--train-missing"]
    assert mtl("train", "--suite", "mini", "--task", "same", "shared").code == 0
    with locked(tmp_path / "runs" / _runhash("mood") / "lock", "the test"):
        said = mtl("compose", *line, "--json")
        assert said.code == 0, said
        assert said.json["runs"] == []
        assert [row["status"] for row in said.json["trained"]] == ["elsewhere"]
        told = mtl("compose", *line)
        assert told.code == 0
        assert f"Nothing was composed for {TARGET}" in told.out
        assert "--wait" in told.out
        with pytest.raises(HeldError):
            _face("mood")
    said = mtl("compose", *line, "--wait", "--json")
    assert said.code == 0, said
    assert [row["status"] for row in said.json["trained"] + said.json["runs"]] == ["done", "done"]


def _runhash(task: str) -> str:
    from mtl.compose.planning import suite_of
    from mtl.runs.context import open_context, specs_of
    from mtl.runs.settings import Overrides
    from mtl.runs.workspace import open_workspace
    from mtl.train import plan_adapters

    suite = suite_of("mini", [task])
    context = open_context(
        suite,
        model=None,
        recipe=None,
        protocol=None,
        overrides=Overrides({}),
        workspace=open_workspace(),
        check=lambda recipe, overrides: None,
    )
    (run,) = plan_adapters(context, specs_of(suite, [task]), method="pfeiffer", seeds=[0])
    return run.runhash


def _face(task: str) -> None:
    import mtl as face

    face.train_adapter(f"mini/{task}")
