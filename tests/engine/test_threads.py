"""Threads: how they wait, how many a model gets, and that the user's word goes before ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mtl.engine import device, open_device
from mtl.threads import TINY, threads_for, usable_cores, wait_passively

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "7"}, None),
        ({"KMP_BLOCKTIME": "1"}, None),
    ],
)
def test_waiting_threads_sleep_unless_the_user_said_otherwise(
    given: dict[str, str], policy: str | None
) -> None:
    environment = dict(given)
    wait_passively(environment)
    assert environment.get("OMP_WAIT_POLICY") == policy
    assert given.items() <= environment.items()


def test_the_library_has_read_it_when_torch_is_loaded() -> None:
    """What OpenMP itself says that it does; every front door imports the package ``mtl`` first."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", "import mtl, torch"],
        cwd=ROOT,
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in done.stderr.splitlines()]
    if not any("OPENMP DISPLAY ENVIRONMENT" in line for line in said):
        pytest.skip("torch was built without OpenMP, or loads it elsewhere")
    assert any(line.endswith("OMP_WAIT_POLICY = 'PASSIVE'") for line in said), said
    spins = [line for line in said if "GOMP_SPINCOUNT" in line]
    assert all(line.endswith("'0'") for line in spins), spins


@pytest.mark.parametrize(
    ("hidden", "available", "processes", "threads"),
    [
        *((TINY, 8, 1, 1), (TINY + 1, 8, 1, 8), (768, 8, 2, 4)),
        *((768, 8, 3, 2), (768, 2, 4, 1), (768, 1, 1, 1)),
    ],
)
def test_threads_are_for_large_models_and_divided_among_processes(
    hidden: int, available: int, processes: int, threads: int
) -> None:
    assert threads_for(hidden, available, processes) == threads


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of eight cores, and nobody has said anything."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "_at_first", 8)
    monkeypatch.setattr(device, "_now", before)
    monkeypatch.setattr(device, "usable_cores", lambda: 8)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("eight")
def test_a_device_is_opened_with_the_threads_of_its_model() -> None:
    assert open_device("fp32", hidden_size=768).describe()["threads"] == 8
    assert open_device("fp32", hidden_size=128).describe()["threads"] == 1
    assert open_device("fp32", hidden_size=768).describe()["threads"] == 8
    # as an entry was trained, so that its sums come out alike; more than there are cores is no help
    assert open_device("fp32", hidden_size=768, threads=3).describe()["threads"] == 3
    assert open_device("fp32", hidden_size=128, threads=64).describe()["threads"] == 1
    # without a model nothing changes
    torch.set_num_threads(2)
    assert open_device("fp32").describe()["threads"] == 2


@pytest.mark.usefixtures("eight")
def test_the_users_number_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    open_device("fp32", hidden_size=768)
    torch.set_num_threads(3)
    assert open_device("fp32", hidden_size=128).describe()["threads"] == 3
    monkeypatch.setattr(device, "_now", 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert open_device("fp32", hidden_size=128, threads=5).describe()["threads"] == 3


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
