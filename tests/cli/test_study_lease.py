"""Leases of runs and what machines must share: on folders here, with other machines acted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import HeldError, RequestError, RunError
from mtl.study import lease, sharing


def elsewhere(path: Path, **changes: Any) -> None:
    """Say that the lease is held by a process of another machine."""
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "host": "other", **changes}))


def test_one_at_a_time(tmp_path: Path) -> None:
    own = f"process {os.getpid()} on {os.uname().nodename}"
    with lease.leased(tmp_path, "it"), pytest.raises(HeldError, match=own):
        lease.take(tmp_path, "it")
    assert not list(tmp_path.iterdir())
    with lease.leased(tmp_path, "it"):
        pass


def test_of_many_that_want_it_one_gets_it(tmp_path: Path) -> None:
    got: list[Path] = []
    start = threading.Barrier(8)

    def want() -> None:
        start.wait()
        with contextlib.suppress(HeldError):
            got.append(lease.take(tmp_path, "it"))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert lease.leases(tmp_path) == got


def test_a_dead_process_of_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from mtl.study import lease\n"
    code += "lease.take(Path(sys.argv[1]), 'it')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert [path.name for path in lease.leases(tmp_path)] == ["lease.1"]
    assert lease.take(tmp_path, "it").name == "lease.2"
    assert [path.name for path in lease.leases(tmp_path)] == ["lease.2"]


def test_a_silent_machine_loses_it_and_one_that_speaks_does_not(tmp_path: Path) -> None:
    own = lease.take(tmp_path, "it")
    elsewhere(own)
    with pytest.raises(HeldError, match="on other"):
        lease.take(tmp_path, "it")
    then = time.time() - 100
    os.utime(own, (then, then))
    assert lease.take(tmp_path, "it", seconds=60).name == "lease.2"


def test_who_slept_and_lost_it_hears_of_it(tmp_path: Path) -> None:
    lost = threading.Event()
    with lease.leased(tmp_path, "it", seconds=1, lost=lost.set):
        own = lease.newest(tmp_path)
        assert own is not None
        before = own.stat().st_mtime
        deadline = time.monotonic() + 10
        while own.stat().st_mtime == before:  # it beats
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (tmp_path / "lease.2").write_text(own.read_text())
        assert lost.wait(10)
    assert [path.name for path in lease.leases(tmp_path)] == ["lease.2"]


def test_seconds_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_LEASE_SECONDS", "soon")
    with pytest.raises(RunError, match="MTL_LEASE_SECONDS must be"):
        lease.lease_seconds()


def test_a_folder_that_gives_what_it_must(tmp_path: Path) -> None:
    sharing.check_folder(tmp_path / "runs", "the runs folder")
    assert not list((tmp_path / "runs").iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Cannot write into the zoo"):
        sharing.check_folder(tmp_path / "file" / "zoo", "the zoo")
    with pytest.raises(RunError, match="Cannot write the lease of it"):
        lease.take(tmp_path / "file" / "run", "it")


def test_a_filesystem_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RequestError, match=r"the zoo .* has no hard links"):
        sharing.check_folder(tmp_path, "the zoo")


def test_what_machines_say(tmp_path: Path) -> None:
    with sharing.leave_token(tmp_path / "runs") as token:
        good = sharing.look(token, [str(tmp_path)])
        assert good.problems == ()
        assert sharing.judge([good], token) == []
        assert not Path(good.answer).exists()

        blind = sharing.look(replace(token, file="/nowhere/token"), [])
        assert "does not see the runs folder" in blind.problems[0]
        poor = sharing.look(token, ["/nowhere/task.yaml"])
        assert poor.problems == ("does not have /nowhere/task.yaml",)
        other = sharing.look(replace(token, versions={**token.versions, "torch": "1.0"}), [])
        assert "differs from" in other.problems[0]
        assert "(not 1.0)" in other.problems[0]
        with pytest.raises(RequestError, match=r"Nothing was run\. .*runs folder.*task\.yaml"):
            sharing.judge([blind, poor, good], token)
        # another machine: it must see the lock
        afar = replace(token, driver="head")
        assert sharing.look(afar, []).flock is True
        assert "flock" in sharing.judge([replace(blind, problems=(), flock=False)], token)[0]
    assert not [path for path in (tmp_path / "runs").iterdir() if "token" in path.name]
