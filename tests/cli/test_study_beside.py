"""``mtl.study run --side-by-side``: a worker trains several runs at once, each by itself."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_bench import digests, leftovers, mtl, process
from study_bench import SHORT, first_lines, write_study

from mtl.cli.study_progress import showing
from mtl.engine import RunFolder
from mtl.files import read_safetensors
from mtl.study import Places, StudyPlan, drive, plan_study, read_study
from mtl.study import driving as module
from mtl.study.driving import Going
from mtl.study.engines import Happened
from mtl.study.executing import execute_beside, execute_task
from mtl.study.journal import Journal
from mtl.study.work import Outcome, Task
from mtl.zoo import open_zoo


class Here:
    """An engine of one worker in this process, which keeps what it was given."""

    on_cpu = True

    def __init__(self, plan: StudyPlan) -> None:
        self.desk = plan.desk
        self.given: list[list[str]] = []
        self.waiting: Sequence[Task] = ()

    def describe(self) -> str:
        return "here"

    def free(self) -> int:
        return 0 if self.waiting else 1

    def submit(self, *tasks: Task) -> None:
        self.given.append([task.cell.label for task in tasks])
        self.waiting = tasks

    def wait(self, seconds: float) -> list[Happened]:
        tasks, self.waiting = self.waiting, ()
        found = [Happened("begun", task.key, "1") for task in tasks]

        def ended(outcome: Outcome) -> None:
            found.append(Happened("ended", outcome.key, "1", outcome=outcome))

        def step(key: str, done: int, total: int) -> None:
            found.append(Happened("step", key, "1", done=done, total=total))

        if len(tasks) > 1:
            execute_beside(tasks, self.desk, ended, step)
        else:
            for task in tasks:
                ended(execute_task(task, self.desk))
        return found

    def close(self) -> None:
        pass


def planned(path: Path, beside: int = 8, **places: Any) -> StudyPlan:
    return plan_study(read_study(str(path)), Places(beside=beside, **places))


def tasks_of(plan: StudyPlan) -> list[Task]:
    """Those that can begin."""
    return [
        Task(key, node.cell, plan.desk.places, node.runhash)
        for key, node in plan.nodes.items()
        if node.state in {"missing", "resumable"}
    ]


def journal_of(plan: StudyPlan) -> Journal:
    return Journal(plan.desk.workspace.runs, plan.study.name)


def run_here(plan: StudyPlan) -> tuple[Here, Going]:
    engine = Here(plan)
    return engine, drive(plan, engine, journal_of(plan))


def made(zoo: Path) -> dict[str, Any]:
    """Runhash → entry."""
    return {entry.manifest.runhash: entry for entry in open_zoo(zoo).entries()}


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs compute in fp64: what differs then is no rounding."""
    import mtl.runs.executing as executing

    real = executing.prepare

    def prepare(*given: Any) -> Any:
        found = real(*given)
        found.built.network.to(torch.float64)
        return found

    monkeypatch.setattr(executing, "prepare", prepare)


def weights(entry: Any) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{path.name}:{name}": tensor.double()
        for path in sorted(entry.folder.rglob("*.safetensors"))
        for name, tensor in read_safetensors(path)[0].items()
    }


def test_entries_equal_those_made_one_by_one(mini: Path, tmp_path: Path, doubles: None) -> None:
    path = write_study(tmp_path, "compose", "joint")
    found = {}
    for beside in (1, 8):
        places = {"zoo": str(tmp_path / f"zoo{beside}"), "runs": str(tmp_path / f"runs{beside}")}
        engine, going = run_here(planned(path, beside, **places))
        assert not going.failed()
        assert [len(group) for group in engine.given] == ([6] if beside > 1 else [1] * 6)
        found[beside] = made(Path(places["zoo"]))
    assert sorted(found[1]) == sorted(found[8])
    assert len(found[1]) == 6
    for runhash, one in found[1].items():
        other = found[8][runhash]
        assert "side_by_side" not in one.manifest.training
        assert other.manifest.training["side_by_side"] == 6
        mine, its = weights(one), weights(other)
        assert list(mine) == list(its)
        assert max(float((mine[name] - its[name]).abs().max()) for name in mine) < 1e-9
        assert one.manifest.training["steps"] == other.manifest.training["steps"]
        for split in ("dev", "test"):
            for name, told in one.manifest.metrics[split].items():
                if isinstance(told, dict) and told.get("value") is not None:
                    value = other.manifest.metrics[split][name]["value"]
                    assert value == pytest.approx(told["value"], abs=1e-9)


def test_workers_take_runs_together_and_compositions_behind_them(
    mini: Path, tmp_path: Path
) -> None:
    """By the command line: nine runs, each with its line, its event, its entry."""
    path = write_study(tmp_path)
    driver = process(
        *("study", "run", path, "--workers", 1, "--side-by-side", "auto"), MTL_QUIET="0"
    )
    out, err = driver.communicate(timeout=280)
    assert driver.returncode == 0, err
    assert "9 to be run (1 × CPU, 1 thread(s) each, side by side as many as pay)" in err
    assert err.count(", one of 6 side by side") == 6
    assert err.count(", one of 2 side by side") == 2  # the compositions
    assert "9 runs, 9 done (9 now), 0 failed" in out
    told = {e.manifest.training.get("side_by_side") for e in made(mini).values()}
    assert told == {6, 2, None}  # the joint run goes by itself
    lines = journal_of(planned(path)).read()
    assert [line["status"] for line in lines] == ["done"] * 9
    assert sorted(line.get("side_by_side", 1) for line in lines) == [1, 2, 2, *[6] * 6]
    assert len(list((tmp_path / "runs").glob("*/events.jsonl"))) == 9
    assert not leftovers(mini)
    assert mtl("zoo", "fsck").code == 0
    assert mtl("zoo", "verify", next(iter(digests(mini)))).code == 0
    again = mtl("study", "run", path, "--side-by-side", 4, "--json")
    assert again.code == 0
    assert {run["state"] for run in again.json["runs"]} == {"done"}


def test_one_fails_one_is_held_one_is_done_and_the_others_are_made(
    mini: Path, tmp_path: Path
) -> None:
    path = write_study(
        tmp_path,
        *("compose", "joint"),
        seeds=[0, 1, 2, 3],
        tasks=["same"],
        train=[
            {"method": "pfeiffer"},
            {"method": "pfeiffer", "seeds": [9], "set": {"lr": 1e30, "clip": 0}},
        ],
    )
    plan = planned(path)
    tasks = tasks_of(plan)
    assert execute_task(tasks[0], plan.desk).status == "done"
    assert tasks[1].runhash is not None
    outcomes: dict[str, Outcome] = {}
    steps: dict[str, list[int]] = {}
    elsewhere = RunFolder(plan.desk.workspace.runs / tasks[1].runhash)
    wrong = Task(tasks[2].key, tasks[2].cell, tasks[2].places, "0" * 64)
    with elsewhere.lock("a run"):
        execute_beside(
            [*tasks[:2], wrong, *tasks[3:]],
            plan.desk,
            lambda outcome: outcomes.update({outcome.key: outcome}),
            lambda key, done, total: steps.setdefault(key, []).append(done),
        )
    assert [outcomes[task.key].status for task in tasks] == [
        *("skipped", "held", "failed", "done", "failed")
    ]
    assert "this worker plans the run" in outcomes[tasks[2].key].error
    assert "loss became" in outcomes[tasks[4].key].error
    assert outcomes[tasks[3].key].told["side_by_side"] == 2
    assert steps[tasks[3].key] == [1, 2, 3, 4]
    assert set(steps) == {tasks[3].key, tasks[4].key}
    for task in tasks:  # nobody holds anything any more
        assert task.runhash is not None
        with RunFolder(plan.desk.workspace.runs / task.runhash).lock("a run"):
            pass


def test_what_does_not_fit_goes_by_itself_and_is_not_tried_again(
    mini: Path, tmp_path: Path
) -> None:
    path = write_study(
        tmp_path,
        *("compose", "joint"),
        seeds=[0, 1, 2],
        tasks=["same"],
        train=[{"method": "compacter++"}, {"method": "lora"}],
    )
    engine, going = run_here(planned(path, 2))
    assert not going.failed()
    assert [len(group) for group in engine.given] == [2, 1, 1, 1, 2, 1]
    assert len(made(mini)) == 6


def test_a_defect_of_one_lets_all_go_by_themselves(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtl.runs.executing as executing

    real = executing.store_run

    def store(run: Any, *rest: Any) -> Any:
        if run.seed == 1:
            raise KeyError("a defect")
        return real(run, *rest)

    monkeypatch.setattr(executing, "store_run", store)
    path = write_study(tmp_path, "compose", "joint", seeds=[0, 1, 2], tasks=["same"])
    engine, going = run_here(planned(path))
    assert [len(group) for group in engine.given] == [3, 1, 1]  # seed 0 was stored by then
    (failed,) = going.failed()
    assert "mini/same pfeiffer seed 1" in failed.error
    assert failed.error.endswith("KeyError: 'a defect'")
    assert "Traceback" in failed.trace
    assert len(made(mini)) == 2


class Scripted(Here):
    """An engine of several workers: ``answer`` says what becomes of each task."""

    def __init__(self, plan: StudyPlan, answer: Callable[[Task, int], Happened], workers: int = 1):
        super().__init__(plan)
        self.answer, self.workers, self.groups = answer, workers, []

    def free(self) -> int:
        return self.workers - len(self.groups)

    def submit(self, *tasks: Task) -> None:
        self.given.append([task.cell.label for task in tasks])
        self.groups.append(tasks)

    def wait(self, seconds: float) -> list[Happened]:
        groups, self.groups = self.groups, []
        found = []
        for name, tasks in enumerate(groups, start=1):
            for task in tasks:
                found.append(Happened("begun", task.key, str(name)))
                found.append(Happened("step", task.key, str(name), done=2, total=4))
        return found + [self.answer(task, len(tasks)) for tasks in groups for task in tasks]


TOLD = {"metric": "accuracy", "dev": 0.5, "test": None, "steps": 4, "seconds": 1.0, "threads": 1}


def ended(task: Task, status: str = "done", **told: Any) -> Happened:
    outcome = Outcome(task.key, status, task.runhash, told={**TOLD, **told})
    return Happened("ended", task.key, "1", outcome=outcome)


@pytest.fixture
def four(mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPlan:
    """A plan of four runs that fit."""
    monkeypatch.setattr(module, "TICK", 0.0)
    monkeypatch.setattr(module, "AGAIN", 0.0)
    path = write_study(tmp_path, "compose", "joint", tasks=["same", "mood"])
    return planned(path, 0)


def test_two_workers_take_a_half_each(four: StudyPlan) -> None:
    engine = Scripted(four, lambda task, beside: ended(task), workers=2)
    drive(four, engine, journal_of(four))
    assert [len(group) for group in engine.given] == [2, 2]


def test_a_worker_dies_with_all_of_its_runs_and_each_goes_on_alone(four: StudyPlan) -> None:
    first = next(iter(four.nodes))

    def answer(task: Task, beside: int) -> Happened:
        if beside > 1 or task.key == first:
            return Happened("lost", task.key, "1", text="its worker died of SIGKILL")
        return ended(task)

    engine = Scripted(four, answer)
    going = drive(four, engine, journal_of(four))
    assert [len(group) for group in engine.given] == [4, *[1] * 5]
    (failed,) = going.failed()  # it takes no other along
    assert (failed.key, "3 times" in failed.error) == (first, True)


def test_auto_goes_one_by_one_where_that_is_as_fast(
    four: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.runs.beside.AUTO_HIDDEN", 1)
    engine = Scripted(four, lambda task, beside: ended(task))
    drive(four, engine, journal_of(four))
    assert [len(group) for group in engine.given] == [1, 1, 1, 1]


def test_trackers_that_follow_one_run_at_a_time(
    four: StudyPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mtl.runs.running.SEVERAL", ())  # as W&B, MLflow and Trackio
    plan = planned(four.study.path, 4, track="tensorboard")
    engine = Scripted(plan, lambda task, beside: ended(task))
    drive(plan, engine, journal_of(plan))
    assert [len(group) for group in engine.given] == [1, 1, 1, 1]
    note = "note: runs go one by one: tensorboard follows one at a time.\n"
    assert capsys.readouterr().err == note


def test_what_a_terminal_and_others_see(four: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTL_QUIET")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    journal, seen = journal_of(four), []
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        engine = Scripted(four, lambda task, beside: ended(task, side_by_side=beside))
        with showing(four, "scripted", 1, silent=False) as tell:

            def told(going: Going, happened: Happened) -> None:
                tell(going, happened)
                if happened.what == "step":
                    journal.beat(going.told(), now=True)
                    seen.append(mtl("study", "status", four.study.path).out)

            drive(four, engine, journal, told)
    shown = stream.getvalue()
    assert "  mini/same pfeiffer seed 0 and 3 beside it: 8/16 " in shown  # one bar for the four
    assert "[4/4] mini/mood pfeiffer seed 1: done" in shown
    assert shown.count("4 steps, 1 s, one of 4 side by side") == 4
    assert "worker 1: mini/mood pfeiffer seed 1: 2/4 steps, for 0 s, one of 4 side" in seen[-1]


def test_the_plan_says_what_goes_together_and_by_whose_time(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, "joint", tasks=["same", "mood"])
    line = ("study", "plan", path)
    assert "side_by_side" not in mtl(*line, "--json").json
    told = mtl(*line, "--side-by-side", 3, "--json").json["side_by_side"]
    assert told == {"ready": 4, "runs": 3, "groups": 1}
    said = mtl(*line, "--side-by-side", "auto")
    text = "Side by side: of 4 runs that can begin, 4 go with others, in 1 group if one worker has"
    assert text in said.out
    train = (
        "train",
        "--suite",
        "mini",
        "--task",
        "same",
        "--set",
        *(f"{k}={v}" for k, v in SHORT.items()),
    )
    assert mtl(*train, "--seeds", 7, 8, "--side-by-side", 2).code == 0

    def by(*more: Any) -> set[str]:
        runs = mtl(*line, *more, "--json").json["runs"]
        return {
            run["seconds_by"] for run in runs if run["task"] == "mini/same" and not run["needs"]
        }

    assert by() == by("--side-by-side", 2) == {"runs like it, side by side"}
    assert mtl(*train, "--seeds", 9).code == 0
    assert by() == {"runs like it"}
    assert by("--side-by-side", 2) == {"runs like it, side by side"}
    assert "one by one where no run like them" not in mtl(*line, "--side-by-side", 2).out
    assert mtl("train", "--suite", "mini", "--task", "mood", "--epochs", 1).code == 0
    assert "one by one where no run like them" in mtl(*line, "--side-by-side", 2).out
    assert by("--side-by-side", "auto") == {"runs like it, side by side"}
    monkeypatch.setattr("mtl.runs.beside.AUTO_HIDDEN", 1)  # they would go one by one
    assert by("--side-by-side", "auto") == {"runs like it"}


LONG = {"max_steps": 30, "eval_every": 1}


def workers_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    told = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in listed}
    return [child for child, words in told.items() if b"spawn_main" in words]


@pytest.mark.parametrize("kill", ["worker", "driver"])
def test_killed_together_each_goes_on(kill: str, mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path, "compose", "joint", seeds=[0, 1, 2], tasks=["same"], set=LONG)
    whole = {"zoo": str(tmp_path / "whole"), "runs": str(tmp_path / "whole-runs")}
    _, going = run_here(planned(path, 3, **whole))
    assert not going.failed()
    runs = tmp_path / "runs"
    line = ["study", "run", path, "--workers", 1, "--side-by-side", 3, "--json"]
    first = process(*line, MTL_RESUME_SECONDS="0")

    def looks() -> list[int]:
        return [len(path.read_text().splitlines()) for path in runs.glob("*/events.jsonl")]

    deadline = time.monotonic() + 120
    while first.poll() is None and (len(looks()) < 3 or min(looks()) < 3):
        assert time.monotonic() < deadline, "the study made no progress"
        time.sleep(0.01)
    began = first_lines(runs)
    assert len(began) == 3
    (worker,) = workers_of(first.pid)
    if kill == "worker":
        os.kill(worker, signal.SIGKILL)
        out, err = first.communicate(timeout=200)
        assert first.returncode == 0, err
        beside = {None}  # each went on by itself
    else:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline, "a worker outlived its driver"
            time.sleep(0.05)
        assert mtl("study", "plan", path, "--json").json["states"]["resumable"] == 3
        again = process(*line)
        out, err = again.communicate(timeout=200)
        assert again.returncode == 0, err
        beside = {3}
    assert {run["status"] for run in json.loads(out)["runs"]} == {"done"}
    found, expected = made(mini), made(tmp_path / "whole")
    assert {e.manifest.training.get("side_by_side") for e in found.values()} == beside
    assert sorted(found) == sorted(expected)
    for runhash, entry in found.items():
        mine, its = weights(entry), weights(expected[runhash])
        assert max(float((mine[name] - its[name]).abs().max()) for name in mine) < 1e-3
        assert entry.manifest.training["steps"] == 30
    assert began.items() <= first_lines(runs).items()  # with its time: none was begun anew
    for file in runs.glob("*/events.jsonl"):
        steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
        assert steps == list(range(1, 31))
    assert not leftovers(mini)


def test_two_drivers_share_a_study(mini: Path, tmp_path: Path) -> None:
    """Who cannot hold a run leaves it to the other one, and no run is made twice."""
    path = write_study(tmp_path, "compose", "joint", tasks=["same", "mood"], set=LONG)
    line = ["study", "run", path, "--workers", 1, "--side-by-side", 2, "--json"]
    for driver in [process(*line), process(*line)]:
        out, err = driver.communicate(timeout=280)
        assert driver.returncode == 0, err
        assert {run["state"] for run in json.loads(out)["runs"]} == {"done"}
    assert len(made(mini)) == 4
    statuses = [line["status"] for line in journal_of(planned(path)).read()]
    assert statuses.count("done") == 4
