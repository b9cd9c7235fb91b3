"""Requests that fail, a full disk, a kill: said once, and the same command again completes it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hub_bench import REPO, composed, hub, proven, same
from loopback_state import Fault, Hub
from zoo_bench import digests, task

from mtl.cli.main import dispatch
from mtl.errors import MtlError, RunError
from mtl.hub import pull, push
from mtl.zoo import Zoo

__all__ = ["hub"]  # the fixture

FAULTS = [
    Fault("cut", r"PUT /lfs/"),
    Fault("cut", r"POST /api/models/.*/commit/"),
    Fault("lost", r"POST /api/models/.*/commit/"),
    Fault("cut", r"POST .*/objects/batch"),
    Fault("status", r"PUT /lfs/", status=500),
    Fault("status", r"POST /api/models/.*/preupload/", status=503),
    Fault("status", r"POST /api/models/.*/commit/", status=500),
    Fault("status", r"GET /api/models/.*/tree/", status=429, headers={"Retry-After": "1"}),
    Fault("status", r"POST /verify", status=503),
    Fault("status", r"POST /api/repos/create", status=503),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.kind}{f.status} {f.where[:24]}")
def test_a_push_that_meets_a_fault_once_ends_well(hub: Hub, zoo: Zoo, fault: Fault) -> None:
    composed(zoo)
    hub.faults = [Fault(**{**vars(fault), "times": 1})]
    push(zoo, [], REPO)
    assert hub.faults[0].times == 0
    same(hub, zoo)
    assert len(hub.repos["ada/zoo"].commits) == 2
    sent = hub.sent()
    assert len(sent) == len(set(sent)) == len(hub.objects)


@pytest.mark.parametrize(
    "fault",
    # A lost answer does no harm at all, and what was uploaded is there without a verification.
    [fault for fault in FAULTS if fault.kind != "lost" and "verify" not in fault.where],
    ids=lambda f: f"{f.kind}{f.status} {f.where[:24]}",
)
def test_a_push_that_fails_says_so_and_the_rerun_completes(
    hub: Hub, zoo: Zoo, fault: Fault
) -> None:
    composed(zoo)
    skip = 2 if "PUT" in fault.where else 0
    hub.faults = [Fault(**{**vars(fault), "times": -1, "skip": skip})]
    with pytest.raises(RunError, match=r"Cannot (push .* entries to|read) ada/zoo") as failed:
        push(zoo, [], REPO)
    assert "same command" in str(failed.value) or "somebody else" in str(failed.value)
    hub.faults = []
    push(zoo, [], REPO)
    same(hub, zoo)
    sent = hub.sent()
    assert len(sent) == len(set(sent)) == len(hub.objects)


def test_a_rate_limit_that_is_long_is_told(hub: Hub, zoo: Zoo) -> None:
    proven(zoo)
    limit = Fault("status", "GET", -1, status=429, headers={"RateLimit": '"api";r=0;t=280'})
    hub.faults = [limit]
    with pytest.raises(RunError, match=r"rate of your requests \(429\). It asks for 280 seconds"):
        push(zoo, [], REPO)
    assert len(hub.log) == 1


def test_two_writers(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    """Another commit between reading and writing: the second writer looks again."""
    proven(zoo)
    push(zoo, [], REPO)
    proven(other, task=task("other"))
    from mtl.hub import pushing

    real, calls = pushing._Attempt._commit, []

    def late(self: Any, remote: Any, plan: Any) -> str:
        if not calls:
            calls.append(1)
            hub.put("ada/zoo", {"notes.txt": b"in between"})
        return real(self, remote, plan)

    pushing._Attempt._commit = late  # type: ignore[method-assign]
    try:
        push(other, [], REPO)
    finally:
        pushing._Attempt._commit = real  # type: ignore[method-assign]
    assert hub.files("ada/zoo")["notes.txt"] == b"in between"
    pull(zoo, REPO)
    same(hub, zoo)


PULL_FAULTS = [
    Fault("cut", r"GET /cdn/"),
    Fault("truncated", r"GET /cdn/"),
    Fault("wrong", r"GET /cdn/"),
    Fault("wrong", r"GET /ada/zoo/resolve/.*adapter_config"),
    Fault("wrong", r"GET /ada/zoo/resolve/.*manifest"),
    Fault("status", r"GET /cdn/", status=500),
    Fault("status", r"HEAD /ada/zoo/resolve/", status=503),
    Fault("status", r"HEAD /ada/zoo/resolve/", status=429),
    Fault("status", r"GET /api/models/", status=503),
]


@pytest.mark.parametrize("fault", PULL_FAULTS, ids=lambda f: f"{f.kind}{f.status} {f.where[:24]}")
def test_a_pull_that_meets_a_fault_once_ends_well(
    hub: Hub, zoo: Zoo, other: Zoo, fault: Fault
) -> None:
    composed(zoo)
    push(zoo, [], REPO)
    hub.faults = [Fault(**{**vars(fault), "times": 1})]
    pull(other, REPO)
    assert hub.faults[0].times == 0
    same(hub, other)


@pytest.mark.parametrize("fault", PULL_FAULTS, ids=lambda f: f"{f.kind}{f.status} {f.where[:24]}")
def test_a_pull_that_fails_says_so_and_the_rerun_completes(
    hub: Hub, zoo: Zoo, other: Zoo, fault: Fault
) -> None:
    composed(zoo)
    push(zoo, [], REPO)
    hub.faults = [Fault(**{**vars(fault), "times": -1, "skip": 1 if "cdn" in fault.where else 0})]
    with pytest.raises(MtlError, match=r"ada/zoo.*ame command"):
        pull(other, REPO)
    assert other.fsck() == []
    hub.faults = []
    pull(other, REPO)
    same(hub, other)


def test_a_full_disk(hub: Hub, zoo: Zoo, other: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from mtl.hub import pulling

    composed(zoo)
    push(zoo, [], REPO)
    real = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if target.name == "composition.safetensors":
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(pulling.shutil, "copyfile", full)
    with pytest.raises(RunError, match="disk is full"):
        pull(other, REPO)
    assert len(digests(other)) == 2  # the sources, whole
    assert other.fsck() == []
    monkeypatch.undo()


@pytest.mark.parametrize("files", [0, 4])
def test_a_pull_that_is_killed(files: int, hub: Hub, zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    """In a process of its own, with the environment that users set; after some of the files."""
    composed(zoo)
    push(zoo, [], REPO, private=True)
    hub.faults = [Fault("slow", r"GET /cdn/", -1, skip=files, seconds=2.0)]
    before = len(hub.log)
    process = subprocess.Popen(
        [sys.executable, "-m", "mtl.zoo", "pull", "ada/zoo", "--zoo", str(other.root)],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        },
    )
    wanted = r"GET /cdn/" if files else r"HEAD /ada/zoo/resolve/.*manifest"
    while sum(bool(re.match(wanted, f"{m} {p}")) for m, p, _ in hub.log[before:]) < max(files, 1):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    assert process.wait() == -9
    hub.faults = []
    other.clean()
    assert other.fsck() == []
    pull(other, REPO)
    same(hub, other)


def test_slow_is_not_endless(
    hub: Hub, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtl.hub import client

    entry = proven(zoo)
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    monkeypatch.setattr(client, "WAITS", (0.0,))
    hub.faults = [Fault("slow", r"POST .*/commit/", -1, seconds=0.6)]
    line = ["push", entry.ref, "--repo", "ada/zoo", "--zoo", str(zoo.root)]
    assert dispatch("zoo", line) == 1
    assert "the connection failed" in capsys.readouterr().err
    hub.faults = []
    assert dispatch("zoo", line) == 0
    assert "ada/zoo" in capsys.readouterr().out
    same(hub, zoo)
