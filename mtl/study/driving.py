"""The driver of a study: hands runs to an engine as their sources get there, until all is done.

It knows no processes; an engine is anything that :class:`mtl.study.engines.Engine` describes. Runs
that fit are handed over several at once, where that was asked for (:mod:`mtl.study.groups`). A run
that fails fails alone. One whose worker died goes back into the line and goes on from its resume
point. One that another process is at is looked for again until it is there.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mtl.errors import MtlError, ZooError
from mtl.runs.running import allowed_beside, try_zoo
from mtl.study.engines import Engine, Happened
from mtl.study.groups import Groups
from mtl.study.journal import Journal
from mtl.study.planning import Node, StudyPlan
from mtl.study.work import APART, UNFIT, Outcome, Task

TICK = 0.5
TRIES = 3
"""Workers that a run may lose."""
FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT)))
"""How the system says that a disk, or a user's share of it, is full."""
AGAIN = 5.0
"""Seconds between two looks at a run that another process is at."""


@dataclass
class Running:
    """A run that a worker is at, as one of ``beside`` that go side by side."""

    worker: str
    since: float
    done: int = 0
    total: int = 0
    beside: int = 1


@dataclass
class Going:
    """A study on its way; what progress shows and the journal tells.

    Attributes:
        outcomes: key → what became of it, by now.
        running: key → who is at it.
        held: key → the process elsewhere that is at it, as its lock says.
        stopped: why no more runs are begun, or nothing.
        costs: key → seconds that a run is expected to take.
        groups: which runs a worker takes at once.
    """

    plan: StudyPlan
    groups: Groups
    costs: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    started: float = field(default_factory=time.time)
    _lost: dict[str, int] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    def label(self, key: str) -> str:
        """How messages call a run."""
        return self.plan.label(key)

    def ready(self) -> list[str]:
        """Runs that a worker may take now."""
        now = time.monotonic()
        return [
            key
            for key, node in self.plan.nodes.items()
            if node.state in {"missing", "resumable"}
            and key not in self.outcomes
            and key not in self.running
            and self._not_before.get(key, 0.0) <= now
        ]

    def over(self) -> bool:
        """Whether nothing runs, and nothing more will."""
        return not self.running and (bool(self.stopped) or not (self.held or self.ready()))

    def waiting(self) -> dict[str, list[str]]:
        """Runs that did not come to their turn → the labels of failed ones that they need."""
        return {
            key: [
                self.label(need)
                for need in node.needs
                if need in self.outcomes and self.outcomes[need].status == "failed"
            ]
            for key, node in self.plan.nodes.items()
            if node.state == "waiting" and key not in self.outcomes
        }

    def with_whom(self, key: str) -> dict[str, Running]:
        """A run that goes on, and those that its worker is at besides; the first one first."""
        worker = self.running[key].worker
        return {k: run for k, run in self.running.items() if k == key or run.worker == worker != ""}

    def failed(self) -> list[Outcome]:
        """What failed."""
        return [found for found in self.outcomes.values() if found.status == "failed"]

    def seconds_left(self, workers: int) -> float | None:
        """What is left to train, divided by the workers; None where something is not known."""
        total = 0.0
        for key, node in self.plan.nodes.items():
            if node.state == "done" or key in self.outcomes:
                continue
            if key not in self.costs:
                return None
            run = self.running.get(key)
            share = 1.0 - run.done / run.total if run and run.total else 1.0
            total += self.costs[key] * share
        return total / max(workers, 1)

    def task(self, key: str) -> Task:
        """What a worker gets."""
        node = self.plan.nodes[key]
        return Task(key, node.cell, self.plan.desk.places, node.runhash)

    def take(self, happened: Happened) -> Outcome | None:
        """Take what an engine says into account; the outcome of what is over."""
        key = happened.key
        if happened.what == "begun":
            beside = self.running[key].beside if key in self.running else 1
            self.running[key] = Running(happened.worker, time.time(), beside=beside)
        elif happened.what == "step" and key in self.running:
            self.running[key].done, self.running[key].total = happened.done, happened.total
        elif happened.what == "lost":
            self.running.pop(key, None)
            self.groups.leave_alone(key)  # whichever of them it was: alone it takes no other along
            self._lost[key] = self._lost.get(key, 0) + 1
            if self._lost[key] >= TRIES:
                text = (
                    f"{self.label(key)}: {happened.text}, {TRIES} times. Does it fit into "
                    "memory? Fewer workers or a micro_batch_size leave it more."
                )
                return self.end(Outcome(key, "failed", self.plan.nodes[key].runhash, text))
        elif happened.what == "ended":
            assert happened.outcome is not None
            self.running.pop(key, None)
            if happened.outcome.status == "held":
                self.held[key] = happened.outcome.error
                self._not_before[key] = time.monotonic() + AGAIN
                return None
            if happened.outcome.status in APART:
                self.groups.leave_alone(key, its_kind=happened.outcome.status == UNFIT)
                return None
            return self.end(happened.outcome)
        return None

    def end(self, outcome: Outcome) -> Outcome:
        """A run is over: what waits for it may come to its turn."""
        key = outcome.key
        self.held.pop(key, None)
        self.outcomes[key] = outcome
        node = self.plan.nodes[key]
        node.runhash = node.runhash or outcome.runhash
        if outcome.status == "failed":
            return outcome
        node.state = "done"
        for other, waiting in self.plan.nodes.items():
            if key in waiting.needs and waiting.state == "waiting":
                try:
                    self.plan.resolve(other)
                except MtlError as error:
                    self.outcomes[other] = Outcome(other, "failed", error=str(error))
                if waiting.state == "done" and other not in self.outcomes:
                    self.end(Outcome(other, "skipped", waiting.runhash))
        return outcome

    def look_at_held(self) -> list[Outcome]:
        """Runs of other processes that are in the zoo by now."""
        found = []
        for key in [key for key in self.held if self._not_before.get(key, 0) <= time.monotonic()]:
            node: Node = self.plan.nodes[key]
            if node.run is not None:
                self.plan.look(node)
            if node.state == "done":
                found.append(self.end(Outcome(key, "skipped", node.runhash)))
        return found

    def told(self) -> dict[str, Any]:
        """As the journal tells it."""
        statuses = [outcome.status for outcome in self.outcomes.values()]
        return {
            "study": self.plan.study.name,
            "started": self.started,
            "runs": len(self.plan.nodes),
            "done": self.plan.count("done"),
            "failed": statuses.count("failed"),
            "running": [
                {
                    "key": key,
                    "label": self.label(key),
                    "worker": run.worker,
                    "since": run.since,
                    "step": run.done,
                    "steps": run.total,
                    "unit": "trials" if self.plan.nodes[key].cell.search else "steps",
                    **({"side_by_side": run.beside} if run.beside > 1 else {}),
                }
                for key, run in self.running.items()
            ],
            "stopped": self.stopped,
        }


def drive(
    plan: StudyPlan,
    engine: Engine,
    journal: Journal,
    tell: Callable[[Going, Happened], object] = lambda going, happened: None,
    costs: dict[str, float] | None = None,
) -> Going:
    """Run what the plan lacks.

    Args:
        tell: is told of everything that happens; of a run that is over after it was counted.
        costs: expected seconds by key, for the time that is left.

    Raises:
        MtlError: the zoo cannot be written; said before anything trains.
    """
    groups = Groups(plan, allowed_beside(plan.desk.workspace))
    going = Going(plan, groups, dict(costs or {}))
    _check_stored(going)
    runs = [node.run for node in plan.nodes.values() if node.run is not None]
    try_zoo(runs, plan.desk.workspace)
    journal.tidy()
    journal.beat(going.told(), now=True)
    ended = "interrupted"
    try:
        while not going.over():
            while not going.stopped and (free := engine.free()) > 0:
                keys = going.groups.first(going.ready(), free, engine)
                if not keys:
                    break
                engine.submit(*map(going.task, keys))
                for key in keys:
                    going.running[key] = Running("", time.time(), beside=len(keys))
                    going.held.pop(key, None)
            for happened in engine.wait(TICK):
                outcome = going.take(happened)
                if outcome is not None:
                    journal.add(outcome, going.label(outcome.key), happened.worker)
                    _stop_if_full(going, outcome)
                tell(going, happened)
            for outcome in going.look_at_held():
                tell(going, Happened("ended", outcome.key, "", outcome=outcome))
            journal.beat(going.told())
        ended = "failed" if going.failed() else "done"
    finally:
        try:
            engine.close()
        finally:
            journal.beat({**going.told(), "running": [], "ended": ended}, now=True)
    return going


def _check_stored(going: Going) -> None:
    """An entry that is there and damaged fails here, as a command line's run would."""
    zoo = going.plan.desk.workspace.zoo
    for key, node in going.plan.nodes.items():
        if node.state != "done" or node.entry is None:
            continue
        try:
            for entry in zoo.read([node.entry]):
                zoo.load_check(entry)
        except ZooError as error:
            node.state = "missing"
            going.outcomes[key] = Outcome(key, "failed", node.runhash, str(error))


def _stop_if_full(going: Going, outcome: Outcome) -> None:
    """Where a run could not be written, see whether the next one could."""
    if outcome.status != "failed" or "Cannot write" not in outcome.error:
        return
    if any(text in outcome.error for text in FULL):  # an empty folder may well be made there
        going.stopped = (
            "No more runs are begun: there is no space left. Free some, and the same command goes "
            "on; what was trained is kept in the run folders."
        )
        return
    runs = [node.run for node in going.plan.nodes.values() if node.run is not None]
    try:
        try_zoo(runs, going.plan.desk.workspace)
    except MtlError as error:
        going.stopped = f"No more runs are begun: {error}"
