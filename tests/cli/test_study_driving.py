"""The driver of a study over a scripted engine, what it shows and what it leaves for others."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl
from study_bench import write_study

from mtl.cli import study_text
from mtl.cli.study_progress import showing
from mtl.errors import RunError
from mtl.study import Places, StudyPlan, drive, plan_study, read_study
from mtl.study import driving as module
from mtl.study.engines import Happened
from mtl.study.executing import execute_task
from mtl.study.journal import Journal
from mtl.study.work import Outcome, Task

TOLD = {
    "ref": "r",
    "digest": "d",
    "metric": "accuracy",
    "dev": 0.5,
    "test": None,
    "steps": 4,
    "seconds": 1.0,
    "threads": 1,
}


class Scripted:
    """An engine of one worker: ``answer`` says what becomes of a task."""

    def __init__(self, answer: Callable[[Task], Happened]) -> None:
        self.answer, self.tasks, self.closed = answer, [], False
        self.waiting: list[Task] = []

    def describe(self) -> str:
        return "scripted"

    def free(self) -> int:
        return 1 - len(self.waiting)

    def submit(self, task: Task) -> None:
        self.waiting.append(task)
        self.tasks.append(task)

    def wait(self, seconds: float) -> Sequence[Happened]:
        found: list[Happened] = []
        while self.waiting:
            task = self.waiting.pop()
            found.append(Happened("begun", task.key, "1"))
            found.append(Happened("step", task.key, "1", done=2, total=4))
            found.append(Happened("said", task.key, "1", text="a remark"))
            found.append(self.answer(task))
        return found

    def close(self) -> None:
        self.closed = True


def ended(task: Task, status: str, error: str = "") -> Happened:
    told = TOLD if status == "done" else {}
    outcome = Outcome(task.key, status, task.runhash, error, told)
    return Happened("ended", task.key, "1", outcome=outcome)


@pytest.fixture
def plan(mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPlan:
    monkeypatch.setattr(module, "TICK", 0.0)
    monkeypatch.setattr(module, "AGAIN", 0.0)
    path = write_study(tmp_path, "compose", "joint", seeds=[0])
    return plan_study(read_study(str(path)), Places())


def journal_of(plan: StudyPlan) -> Journal:
    return Journal(plan.desk.workspace.runs, plan.study.name)


def test_all_done_and_what_a_terminal_shows(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTL_QUIET")
    for terminal in (False, True):
        stream = io.StringIO()
        stream.isatty = lambda shown=terminal: shown  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stderr", stream)
        for node in plan.nodes.values():
            node.state = "missing"
        engine = Scripted(lambda task: ended(task, "done"))
        with showing(plan, "scripted", 1, silent=False) as tell:
            going = drive(plan, engine, journal_of(plan), tell, dict.fromkeys(plan.nodes, 9.0))
        assert engine.closed
        assert len(engine.tasks) == 3
        shown = stream.getvalue()
        assert "small: 3 runs, 3 to be run (scripted)" in shown
        assert "[3/3] mini/shared pfeiffer seed 0: done, accuracy dev 0.5000 test –" in shown
        assert "a remark" in shown
        assert ("2/4" in shown) == terminal  # the worker's bar
        assert "3 done (3 now), 0 failed, 0 not run" in study_text.run_text(going)


def test_a_worker_that_dies_is_replaced_but_not_for_ever(plan: StudyPlan) -> None:
    first = next(iter(plan.nodes))
    deaths: dict[str, int] = {}

    def answer(task: Task) -> Happened:
        deaths[task.key] = deaths.get(task.key, 0) + 1
        if task.key == first or deaths[task.key] == 1:
            return Happened("lost", task.key, "1", text="its worker died of SIGKILL")
        return ended(task, "done")

    going = drive(plan, Scripted(answer), journal_of(plan))
    assert deaths == {key: 3 if key == first else 2 for key in plan.nodes}
    (failed,) = going.failed()
    assert failed.key == first
    assert "its worker died of SIGKILL, 3 times" in failed.error


def test_a_run_that_is_held_elsewhere_is_tried_again_and_told_once(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MTL_QUIET", raising=False)
    tries: dict[str, int] = {}

    def answer(task: Task) -> Happened:
        tries[task.key] = tries.get(task.key, 0) + 1
        return ended(task, "held" if tries[task.key] < 3 else "done", "process 7 is at it")

    with showing(plan, "scripted", 1, silent=False) as tell:
        going = drive(plan, Scripted(answer), journal_of(plan), tell)
    assert set(tries.values()) == {3}
    assert not going.failed()
    assert capsys.readouterr().err.count("held: process 7 is at it") == 3  # of three runs


@pytest.mark.parametrize("said", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_ends_the_study_and_says_so_once(plan: StudyPlan, said: str) -> None:
    """Though a folder can still be made on it."""
    engine = Scripted(lambda task: ended(task, "failed", f"Cannot write the entry: {said}."))
    going = drive(plan, engine, journal_of(plan))
    assert len(engine.tasks) == 1
    text = study_text.run_text(going)
    assert "0 done (0 now), 1 failed, 2 not run" in text
    assert text.count(said) == 1
    assert text.splitlines()[-1].startswith("No more runs are begun: there is no space left")


def test_a_zoo_that_can_no_longer_be_written_ends_the_study(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(runs: Any, workspace: Any) -> None:
        raise RunError("Cannot write the entry: Read-only file system.")

    def answer(task: Task) -> Happened:
        monkeypatch.setattr(module, "try_zoo", refuse)
        return ended(task, "failed", "Cannot write the entry: Read-only file system.")

    engine = Scripted(answer)
    going = drive(plan, engine, journal_of(plan))
    assert len(engine.tasks) == 1
    assert study_text.run_text(going).splitlines()[-1].startswith("No more runs are begun: Cannot")


def test_the_engine_is_closed_whatever_happens(plan: StudyPlan) -> None:
    def answer(task: Task) -> Happened:
        raise KeyboardInterrupt

    engine = Scripted(answer)
    with pytest.raises(KeyboardInterrupt):
        drive(plan, engine, journal_of(plan))
    assert engine.closed
    (driver,) = journal_of(plan).drivers()
    assert driver["ended"] == "interrupted"


def test_what_others_see_of_a_driver(plan: StudyPlan, tmp_path: Path) -> None:
    journal = journal_of(plan)
    seen: list[str] = []

    def answer(task: Task) -> Happened:
        return ended(task, "failed", f"{task.cell.ids[0]} went wrong")

    def tell(going: Any, happened: Happened) -> None:
        if happened.what == "step":
            journal.beat(going.told(), now=True)
            seen.append(mtl("study", "status", plan.study.path).out)

    drive(plan, Scripted(answer), journal, tell)
    assert f"process {os.getpid()} on " in seen[0]
    assert "worker 1: mini/same pfeiffer seed 0: 2/4 steps, for " in seen[0]
    after = mtl("study", "status", plan.study.path)
    assert " s ago (failed)" in after.out
    assert after.out.count("went wrong") == 3
    (path,) = journal.folder.glob("*.json")
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "ended": None, "written": time.time() - 3600}))
    assert "gone, its last word is 60 min old" in mtl("study", "status", plan.study.path).out
    path.write_text("{")  # a damaged file is nobody's word
    assert mtl("study", "status", plan.study.path, "--json").json["drivers"] == []


@pytest.mark.parametrize("sources", ["auto", pytest.param("best", marks=pytest.mark.slow)])
def test_sources_that_the_worker_chooses(sources: str, stocked: Path, tmp_path: Path) -> None:
    """The plan learns from the journal which run it came to; by hand it is the same."""
    path = write_study(
        tmp_path,
        *("set", "joint"),
        seeds=[0],
        compose=[
            {
                "method": "scalearn",
                "targets": ["same"],
                "sources": sources,
                **({"trials": 20} if sources == "best" else {}),
                "set": {"max_steps": 4, "eval_every": 2},
            }
        ],
    )
    plan = plan_study(read_study(str(path)), Places())
    (key,) = [key for key, node in plan.nodes.items() if node.cell.kind == "composition"]
    node = plan.nodes[key]
    assert (node.state, node.runhash, node.run) == ("missing", None, None)
    assert len(node.needs) == 3
    outcome = execute_task(Task(key, node.cell, plan.desk.places), plan.desk)
    assert outcome.status == "done", outcome
    journal_of(plan).add(outcome, plan.label(key), "1")
    again = mtl("study", "plan", path, "--json").json
    assert again["states"]["done"] == 4
    (run,) = [run for run in again["runs"] if run["key"] == key]
    assert run["runhash"] == outcome.runhash
    line = ["--target", "same", "--sources", sources, "--set", "max_steps=4", "eval_every=2"]
    line += ["--trials", 20] if sources == "best" else []
    (hand,) = mtl("compose", *line, "--json").json["runs"]
    assert (hand["status"], hand["digest"]) == ("skipped", outcome.told["digest"])


@pytest.mark.parametrize("sources", ["auto", pytest.param("best", marks=pytest.mark.slow)])
def test_a_choice_is_among_the_sources_of_the_study_as_it_is_now(
    sources: str, stocked: Path, tmp_path: Path
) -> None:
    """Sources trained otherwise are chosen among anew, whatever others the zoo holds."""
    chosen = {"method": "scalearn", "targets": ["same"], "sources": sources}
    settings = {"max_steps": 4, "eval_every": 2}
    few = {**({"trials": 20} if sources == "best" else {}), "set": settings}

    def planned(steps: int) -> tuple[StudyPlan, str]:
        path = write_study(
            tmp_path,
            *("set", "joint"),
            seeds=[0],
            train=[{"method": "pfeiffer", "set": {**settings, "max_steps": steps}}],
            compose=[{**chosen, **few}],
        )
        study = read_study(str(path))
        plan = plan_study(study, Places())
        found = plan_study(study, Places(), journal_of(plan).resolved())
        (key,) = [key for key, node in found.nodes.items() if node.cell.kind == "composition"]
        return found, key

    seen: dict[int, set[str]] = {}
    for steps in (4, 6):
        plan, key = planned(steps)
        for need in plan.nodes[key].needs:
            assert plan.nodes[key].state != "done"
            made = execute_task(plan_task(plan, need), plan.desk)
            assert made.status in {"done", "skipped"}, made
        plan, key = planned(steps)
        assert plan.nodes[key].state == "missing"
        outcome = execute_task(plan_task(plan, key), plan.desk)
        assert outcome.status == "done", outcome
        journal_of(plan).add(outcome, plan.label(key), "1")
        plan, key = planned(steps)
        assert (plan.nodes[key].state, plan.nodes[key].runhash) == ("done", outcome.runhash)
        entry = plan.nodes[key].entry
        assert entry is not None
        there = {plan.nodes[need].entry.digest for need in plan.nodes[key].needs}  # type: ignore[union-attr]
        seen[steps] = {digest for digest, _ in entry.parents}
        assert seen[steps]
        assert seen[steps] <= there
    assert not seen[4] & seen[6]
    plan, key = planned(4)
    assert plan.nodes[key].state != "done"  # the last word of the journal is of other sources


def plan_task(plan: StudyPlan, key: str) -> Task:
    node = plan.nodes[key]
    return Task(key, node.cell, plan.desk.places, node.runhash)
