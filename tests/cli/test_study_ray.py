"""``mtl.study run --engine ray``: the entries of the local engine, whatever breaks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli_bench import Said, digests, leftovers, mtl, process, refused
from ray_bench import alone, order, two_machines
from study_bench import SHORT, first_lines, write_study

if find_spec("ray") is None:  # importing it takes seconds, here and in every worker of pytest
    pytest.skip("without Ray", allow_module_level=True)
PATIENCE = 600
"""Seconds that a study on Ray may take: starting Ray costs most of them where cores are few."""
SMALL = {
    "seeds": [0],
    "set": SHORT,
    "tasks": ["same", "mood"],
    "compose": [{"method": "average", "targets": ["same"]}],
}


def by_hand(
    folder: Path, seeds: list[int], settings: dict[str, int], *methods: str
) -> dict[str, str]:
    """The runs of the study, by one command line after the other; reference → digest."""
    places = ["--zoo", folder / "zoo", "--runs", folder / "runs", "--seeds", *seeds]
    places += ["--set", *(f"{key}={value}" for key, value in settings.items())]
    tasks = ["--suite", "mini", "--task", "same", "mood"]
    assert mtl("train", *tasks, *places).code == 0
    sources = ["--sources", "same", "mood", "--source-seed", "run"]
    for method in methods:
        said = mtl("compose", "--target", "same", "--method", method, *sources, *places)
        assert said.code == 0, said
    return digests(folder / "zoo")


def reached(what: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "the study made no progress"
        time.sleep(0.02)


def over(driver: subprocess.Popen[str]) -> Said:
    out, err = driver.communicate(timeout=PATIENCE)
    said = Said(driver.returncode, out, err)
    assert said.code == 0, said
    return said


@pytest.mark.timeout(900)
def test_three_runs_on_this_machine(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, "joint", **SMALL)
    expected = by_hand(tmp_path / "hand", [0], SHORT, "average")
    assert len(expected) == 3
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        for name, value in alone(folder).items():
            if not name.startswith("RAY_AUTH"):  # Ray's own are set by us
                monkeypatch.setenv(name, value)
        said = over(process("study", "run", path, "--engine", "ray", "--workers", 1, "--json"))
        assert {run["status"] for run in said.json["runs"]} == {"done"}
        assert {run["threads"] for run in said.json["runs"]} == {1}
        assert digests(mini) == expected
        assert not leftovers(mini)
        assert not list((tmp_path / "runs").rglob("lease.*"))
        assert not list((tmp_path / "runs").glob(".tmp-*"))
        assert not mtl("zoo", "fsck", "--json").json["problems"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_that_fit_go_to_one_worker_together(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, "joint", "compose", set=SHORT, tasks=["same", "mood"])
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        for name, value in alone(folder).items():
            if not name.startswith("RAY_AUTH"):
                monkeypatch.setenv(name, value)
        line = ["study", "run", path, "--engine", "ray", "--workers", 1, "--side-by-side", 4]
        said = over(process(*line, "--json"))
    assert {run["status"] for run in said.json["runs"]} == {"done"}
    assert {run["side_by_side"] for run in said.json["runs"]} == {4}
    journal = tmp_path / "runs/studies/small/journal.jsonl"
    lines = [json.loads(text) for text in journal.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done"] * 4
    assert len(digests(mini)) == 4
    assert not list((tmp_path / "runs").rglob("lease.*"))


MIDDLE = {"max_steps": 100, "eval_every": 2}


def halfway(runs: Path) -> list[Path]:
    """Runs that have a resume point and more to do."""
    found = []
    for point in runs.glob("*/state/point.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            if len((point.parents[1] / "events.jsonl").read_text().splitlines()) <= 20:
                found.append(point)
    return found


def holders(runs: Path) -> dict[str, int]:
    """Run folder → process that holds its lease."""
    found = {}
    for path in runs.glob("*/lease.*"):
        with contextlib.suppress(OSError, ValueError):
            found[path.parent.name] = int(json.loads(path.read_text())["pid"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_worker_dies_and_one_of_two_machines(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [0, 1, 2]
    path = write_study(
        tmp_path,
        "joint",
        seeds=seeds,
        tasks=["same", "mood"],
        set=MIDDLE,
        compose=[{"method": ["average", "scalearn"], "targets": ["same"], "source_seeds": "same"}],
    )
    expected = by_hand(tmp_path / "hand", seeds, MIDDLE, "average", "scalearn")
    assert len(expected) == 12
    runs = tmp_path / "runs"
    with two_machines(monkeypatch, MTL_RESUME_SECONDS="0") as (address, holder):
        line = ["study", "run", path, "--engine", "ray", "--address", address]
        driver = process(*line, MTL_QUIET="0")
        reached(lambda: len(halfway(runs)) == 2, driver)  # a run on each
        began = first_lines(runs)
        first, pid = next(iter(holders(runs).items()))
        os.kill(pid, signal.SIGKILL)
        reached(lambda: holders(runs).get(first, pid) != pid, driver)  # another one goes on
        reached(lambda: len(halfway(runs)) == 2, driver)
        began |= first_lines(runs)
        order(holder)
        said = over(driver)
    assert said.err.count("it goes on in another one") >= 2
    assert digests(mini) == expected
    assert not mtl("zoo", "fsck", "--json").json["problems"]
    # with its time: runs went on, none started anew, and each step is there once
    assert began.items() <= first_lines(runs).items()
    for file in runs.glob("*/events.jsonl"):
        steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
        assert steps == sorted(set(steps)), file
    assert not leftovers(mini)
    assert not list(runs.rglob("lease.*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_told_to_leave_and_run_again(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, "joint", **{**SMALL, "set": MIDDLE})
    expected = by_hand(tmp_path / "hand", [0], MIDDLE, "average")
    runs = tmp_path / "runs"
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        for name, value in alone(folder).items():
            monkeypatch.setenv(name, value)
        line = ["study", "run", path, "--engine", "ray", "--workers", 1, "--json"]
        driver = process(*line)
        reached(lambda: bool(halfway(runs)), driver)
        began = first_lines(runs)
        driver.terminate()
        out, err = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 143, err
        assert out == ""
        assert "terminated; run the same command again to go on" in err
        assert "Traceback" not in err
        assert not list(runs.rglob("lease.*"))  # the worker left by itself
        said = over(process(*line))
    assert {run["status"] for run in said.json["runs"]} == {"done"}
    assert digests(mini) == expected
    assert began.items() <= first_lines(runs).items()


def test_an_address_that_does_not_answer(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    line = ["study", "run", path, "--engine", "ray", "--address"]
    refused(mtl(*line, f"127.0.0.1:{port}"), f"No Ray answers at 127.0.0.1:{port}")
    refused(mtl(*line, "ray://head:10001"), "HOST:PORT of the cluster's head", "ray://head:10001")
    assert not mini.exists() or not digests(mini)


def test_options_of_ray_belong_to_ray(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    refused(mtl("study", "run", path, "--per-gpu", 2), "--per-gpu belongs to --engine ray")
    refused(mtl("study", "run", path, "--address", "a:1"), "--address belongs to --engine ray")
    line = ["study", "run", path, "--engine", "ray"]
    refused(mtl(*line, "--per-gpu", 0), "--per-gpu must be at least 1")
