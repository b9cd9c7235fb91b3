"""What workers of the Ray engine do: functions and an actor that travel to any machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.study.lease import lease_seconds, leased
from mtl.study.local import Lines, run_told
from mtl.study.sharing import Seen, Token, check_token, look
from mtl.study.work import Desk, Outcome, Task

if TYPE_CHECKING:
    from mtl.runs import Run

EVERY = 1.0
"""Seconds between two steps that a worker tells of."""


@dataclass(frozen=True)
class Job:
    """What all tasks of a study share.

    Attributes:
        token: what the driver left in the folder of the runs.
        needed: absolute paths that a machine must have.
        folder: where the driver was called; task files may be named from there.
    """

    token: Token
    needed: tuple[str, ...]
    folder: str


class Ear:
    """An actor beside the driver: keeps what workers say until the driver asks."""

    def __init__(self) -> None:
        self._told: list[tuple[str, Any, str, str]] = []

    def tell(self, what: str, value: Any, key: str, worker: str) -> None:
        self._told.append((what, value, key, worker))

    def heard(self) -> None:
        """Answers when everything that its caller told before is kept."""

    def drain(self) -> list[tuple[str, Any, str, str]]:
        told, self._told = self._told, []
        return told


def probe(job: Job) -> Seen:
    """What a machine has of what the study needs."""
    return look(job.token, job.needed)


_desk: Desk | None = None
_checked: Token | None = None


def train(tasks: Sequence[Task], job: Job, ear: Any, worker: str) -> list[Outcome]:
    """Run tasks to their entries, each under the lease of its run; keeps the base for the next.

    Raises:
        RunError: this machine lacks what the study needs.
    """
    global _desk, _checked
    if _checked != job.token:
        check_token(job.token, job.needed)
        _checked = job.token
    with contextlib.suppress(OSError):
        os.chdir(job.folder)

    def tell(what: str, value: Any, key: str = "") -> None:
        who = f"{worker} on {os.uname().nodename}" if what == "begun" else worker
        ear.tell.remote(what, value, key, who)

    if _desk is None or _desk.places != tasks[0].places:
        _desk = Desk(tasks[0].places)
    lines: Any = Lines(partial(tell, "said"))
    runs = Path(str(tasks[0].places.runs))

    def holding(run: Run) -> AbstractContextManager[object]:
        return leased(runs / run.runhash, f"run {run.label}", seconds=lease_seconds())

    with redirect_stderr(lines), redirect_stdout(lines):
        outcomes = run_told(tasks, _desk, tell, every=EVERY, holding=holding)
    _settle(ear)
    return outcomes


def _settle(ear: Any) -> None:
    """Return when the driver's ear has heard what this worker said."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(ear.heard.remote(), timeout=5)
