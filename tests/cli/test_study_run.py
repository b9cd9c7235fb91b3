"""``mtl.study run``: the entries of the command lines, whoever made them and whatever broke."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import Said, digests, leftovers, mtl, process, refused
from study_bench import SHORT, first_lines, write_study

SET = [f"{key}={value}" for key, value in SHORT.items()]


def by_hand(zoo: Path, runs: Path) -> dict[str, str]:
    """The runs of the study, by one command line after the other; reference → digest."""
    places = ["--zoo", zoo, "--runs", runs, "--set", *SET]
    for line in (
        ["train", "--suite", "mini", "--seeds", 0, 1],
        ["compose", "--target", "same", "--source-seed", "run", "--seeds", 0, 1],
        ["joint", "--suite", "mini", "--method", "adapter-m"],
    ):
        said = mtl(*line, *places)
        assert said.code == 0, said
    return digests(zoo)


def finished(worker: Any, code: int = 0) -> Said:
    out, err = worker.communicate(timeout=280)
    said = Said(worker.returncode, out, err)
    assert said.code == code, said
    return said


def test_by_hand_with_one_worker_and_with_two(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    expected = by_hand(tmp_path / "hand", tmp_path / "hand-runs")
    assert len(expected) == 9
    for workers in (1, 2):
        zoo = tmp_path / f"zoo-{workers}"
        places = ["--zoo", zoo, "--runs", tmp_path / f"runs-{workers}"]
        said = finished(process("study", "run", path, *places, "--workers", workers, "--json"))
        assert said.err == "", said.err
        assert digests(zoo) == expected
        assert {run["status"] for run in said.json["runs"]} == {"done"}
        assert {run["threads"] for run in said.json["runs"]} == {1}
        assert not leftovers(zoo)
        again = mtl("study", "run", path, *places, "--json")  # nothing is left to be run
        assert again.code == 0, again
        assert digests(zoo) == expected
        assert mtl("study", "plan", path, *places, "--json").json["states"]["done"] == 9
        assert not mtl("zoo", "fsck", "--zoo", zoo, "--json").json["problems"]


def test_runs_made_by_hand_count(stocked: Path, tmp_path: Path) -> None:
    """The composition takes the very entries that are there."""
    path = write_study(
        tmp_path,
        *("set", "joint"),
        seeds=[0],
        compose=[{"method": "average", "targets": ["same"], "set": SHORT}],
    )
    before = digests(stocked)
    said = finished(process("study", "run", path, "--workers", 1, MTL_QUIET="0"))
    assert "4 runs, 4 done (1 now), 0 failed, 0 not run" in said.out
    assert "[4/4] mini/same average seed 0" in said.err
    after = digests(stocked)
    assert before.items() < after.items()
    (new,) = after.keys() - before.keys()
    line = ["--target", "same", "--method", "average", "--set", *SET, "--json"]
    again = mtl("compose", *line, "--zoo", stocked).json["runs"][0]
    assert (again["status"], again["ref"]) == ("skipped", new)


def test_a_failed_run_fails_alone_and_what_needs_it_waits(mini: Path, tmp_path: Path) -> None:
    """A rate of 1e30 makes the loss infinite; its composition waits, the other one is made."""
    path = write_study(
        tmp_path,
        "joint",
        seeds=[0],
        set=SHORT,
        train=[
            {"method": "pfeiffer", "tasks": ["same"]},
            {"method": "pfeiffer", "tasks": ["mood"], "set": {"lr": 1e30, "clip": 0}},
        ],
        tasks=["same", "mood"],
        compose=[
            {"method": "average", "targets": ["same"], "sources": ["same"]},
            {"method": "scalearn", "targets": ["same"]},
        ],
    )
    said = finished(process("study", "run", path, "--zoo", mini, "--workers", 2), 1)
    assert "4 runs, 2 done (2 now), 1 failed, 1 not run" in said.out
    assert "failed: mini/mood pfeiffer seed 0" in said.out
    assert "loss became" in said.out
    assert "waits: mini/same scalearn seed 0" in said.out
    assert "for mini/mood pfeiffer seed 0" in said.out.split("waits: ")[1]
    told = mtl("study", "status", path, "--zoo", mini)
    assert told.code == 0
    assert "2 done, 1 missing, 1 waiting" in told.out
    assert "failed: mini/mood pfeiffer seed 0" in told.out
    assert "ended" in told.out


LONG = {"max_steps": 40, "eval_every": 1}


def events(runs: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in runs.glob("*/events.jsonl"))


def until(reached: Callable[[], bool], worker: Any) -> None:
    deadline = time.monotonic() + 120
    while worker.poll() is None and not reached():
        assert time.monotonic() < deadline, "the study made no progress"
        time.sleep(0.01)
    assert worker.poll() is None, worker.communicate()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def children(pid: int) -> list[int]:
    """Worker processes of a driver."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in listed
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    "kill",
    [
        "worker",
        "driver",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("interrupt", "terminate")),
    ],
)
def test_killed_and_run_again_is_an_unbroken_study(
    kill: str, mini: Path, tmp_path: Path, trained_long: tuple[Path, dict[str, str]]
) -> None:
    path, expected = trained_long
    runs = tmp_path / "runs"
    line = ["study", "run", path, "--workers", 2, "--json"]
    first = process(*line, MTL_RESUME_SECONDS="0")
    until(lambda: events(runs) >= 8, first)
    workers = children(first.pid)
    assert len(workers) == 2
    began = first_lines(runs)
    signals = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
    if kill == "worker":  # the driver puts its run back, and another worker goes on
        os.kill(workers[0], signal.SIGKILL)
        said = finished(first)
    else:
        os.kill(first.pid, signals.get(kill, signal.SIGKILL))
        codes = {"driver": -9, "interrupt": 130, "terminate": 143}
        finished(first, codes[kill])
        deadline = time.monotonic() + 30
        while not all(map(gone, workers)):
            assert time.monotonic() < deadline, "a worker outlived its driver"
            time.sleep(0.05)
        states = mtl("study", "plan", path, "--json").json["states"]
        assert states["resumable"] >= 1
        said = finished(process(*line))
    assert {run["status"] for run in said.json["runs"]} <= {"done", "skipped"}
    assert digests(mini) == expected
    # with its time: runs went on, none started anew
    assert began.items() <= first_lines(runs).items()
    assert not leftovers(mini)


@pytest.fixture(scope="session")
def trained_long(
    suite_folder: Path, tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A study of runs that are long enough to be killed, and its entries when nobody does."""
    root = tmp_path_factory.mktemp("long")
    path = write_study(
        root,
        "joint",
        seeds=[0],
        tasks=["same", "mood"],
        set=LONG,
        compose=[{"method": "average", "targets": ["same"]}],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(suite_folder))
        patch.setenv("MTL_MODEL", tiny("roberta"))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        places = ["--zoo", root / "zoo", "--runs", root / "runs"]
        finished(process("study", "run", path, *places, "--workers", 1, "--json"))
    return path, digests(root / "zoo")


def test_a_run_that_another_process_is_at_is_waited_for(mini: Path, tmp_path: Path) -> None:
    """Two drivers share a study: each takes what the other one is not at."""
    path = write_study(tmp_path, "joint", "compose", seeds=[0], set=LONG, tasks=["same", "mood"])
    line = ["study", "run", path, "--workers", 1, "--json"]
    both = [process(*line), process(*line)]
    for driver in both:
        said = finished(driver)
        assert {run["state"] for run in said.json["runs"]} == {"done"}
    assert len(digests(mini)) == 2
    lines = [
        json.loads(text)
        for text in (tmp_path / "runs/studies/small/journal.jsonl").read_text().splitlines()
    ]
    assert sorted(line["status"] for line in lines).count("done") == 2


def test_workers_and_threads_that_cannot_be(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    refused(mtl("study", "run", path, "--workers", 0), "--workers must be at least 1")
    refused(mtl("study", "run", path, "--threads", -1), "--threads must be at least 1")


def test_a_worker_without_a_task_leaves_by_itself() -> None:
    """A signal on its way out would leave semaphores behind, of which a warning then tells."""
    from mtl.study.local import LocalEngine

    engine = LocalEngine(1, 1)
    process = engine._start().process
    listens = f"/proc/{process.pid}/status"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until it is the worker's own who is told of SIGTERM
        caught = next(n for n in Path(listens).read_text().splitlines() if n.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.05)
    engine.close()
    assert process.exitcode == 0
