"""``--side-by-side`` where trials are made: a choice of sources, a search, a search of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, mtl, refused
from study_bench import write_study
from test_side_by_side import adapters

from mtl.runs.workspace import open_workspace
from mtl.study import Places, execute_task, plan_study, read_study
from mtl.study.work import Task

SHORT = ("--epochs", "2", "--eval-every", "1", "--patience", "0")
SEARCH = ("search", "--task", "mini/mood", "--over", "lr=1e-3,1e-2,2e-2", *SHORT, "--json")
CHOICE = ("compose", "--target", "same", "--sources", "best", "--epochs", "2", "--trials", "10")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What went side by side: the labels of every group."""
    from mtl.engine import together

    real, found = together.train_together, []

    def watched(jobs: Any, device: Any, ended: Callable[[int, Any], None]) -> None:
        given = list(jobs)
        found.append([job.label for job in given])
        real(given, device, ended)

    monkeypatch.setattr(together, "train_together", watched)
    return found


def test_what_a_trial_goes_with_is_asked_once(
    mini: Path, tmp_path: Path, groups: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, and looks at what was tried, grow with the runs and not with their pairs."""
    from mtl.runs import beside, trial

    runs = adapters(tmp_path, "pfeiffer", range(9), "mini/mood", max_steps=1, eval_every=1)
    place = open_workspace(zoo=tmp_path / "zoo", runs=tmp_path / "runs", beside=2)
    asked: dict[str, int] = {"key": 0, "tried": 0}
    real_key, real_tried = beside.group_key, trial._tried_before

    def key(run: Any) -> Any:
        asked["key"] += 1
        return real_key(run)

    def tried(*given: Any, **more: Any) -> Any:
        asked["tried"] += 1
        return real_tried(*given, **more)

    monkeypatch.setattr(beside, "group_key", key)
    monkeypatch.setattr(trial, "_tried_before", tried)
    twice = [*runs, runs[0]]
    found = trial.try_runs(twice, place)
    assert [len(group) for group in groups] == [2, 2, 2, 2]  # the last one has nobody
    assert asked["key"] == len(twice)
    assert asked["tried"] <= 3 * len(twice)
    told = [each for each in found if isinstance(each, trial.Trial)]
    assert len(told) == len(twice)
    assert told[-1].known
    assert told[-1].dev == told[0].dev


def tried_in(told: Any) -> list[Any]:
    return [
        (item["values"], item["state"], item["steps"], pytest.approx(item["dev"], abs=1e-4))
        for item in told["methods"][0]["tried"]
    ]


def test_a_choice_side_by_side_is_the_one_that_is_made_one_by_one(
    stocked: Path, tmp_path: Path, groups: list[list[str]]
) -> None:
    def told(name: str, *more: Any) -> dict[str, Any]:
        said = mtl(*CHOICE, *more, "--zoo", stocked, "--runs", tmp_path / name, "--json")
        assert said.code == 0, said
        choice: dict[str, Any] = said.json["choice"]
        return choice

    alone = told("alone")
    assert groups == []
    beside = told("beside", "--side-by-side", 4)
    assert max(map(len, groups)) == 4
    assert sum(map(len, groups)) > 12
    assert len({*groups[0]}) == 1  # the own adapter of every fold
    assert "side_by_side" not in alone
    assert beside["side_by_side"] == 4
    assert beside["chosen"] == alone["chosen"]
    assert beside["cost"] == pytest.approx(alone["cost"])
    for one, other in zip(alone["tried"], beside["tried"], strict=True):
        assert (one["stage"], one["candidate"]) == (other["stage"], other["candidate"])
        assert one["dev"] == pytest.approx(other["dev"], abs=1e-4)
    count = len(groups)
    assert told("beside", "--side-by-side", 4)["tried"] == beside["tried"]
    assert len(groups) == count  # nothing is made again


def test_a_search_side_by_side_finds_what_one_by_one_finds(
    mini: Path, tmp_path: Path, groups: list[list[str]]
) -> None:
    line = (*SEARCH, "--trials", 3, "--seeds", 100, 101, "--runs")
    alone = mtl(*line, tmp_path / "alone").json
    assert groups == []
    beside = mtl(*line, tmp_path / "beside", "--side-by-side", 2).json
    assert [len(group) for group in groups] == [2, 2, 2, 2]  # 0 and 1, then 2 and 3; two seeds
    assert tried_in(beside) == tried_in(alone)
    assert [item.get("side_by_side") for item in beside["methods"][0]["tried"]] == [2] * 4


def test_what_fails_or_is_given_up_leaves_and_the_others_go_on(
    mini: Path, tmp_path: Path, groups: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    line: tuple[Any, ...] = ("search", "--task", "mini/mood", "--over", "lr=1e-3,1e30,2e-2")
    line = (*line, *SHORT, "--json", "--clip", 0, "--trials", 3, "--runs")
    whole = {v["lr"]: dev for v, _, _, dev in tried_in(mtl(*line, tmp_path / "one").json)}
    monkeypatch.setattr(
        "optuna.trial.Trial.should_prune", lambda self: self.params["lr"] == pytest.approx(2e-2)
    )
    said = mtl(*line, tmp_path / "beside", "--side-by-side", 4).json
    assert [len(group) for group in groups] == [4]
    states = {v["lr"]: (state, steps, dev) for v, state, steps, dev in tried_in(said)}
    assert states[1e30][0] == "failed"
    assert states[2e-2][:2] == ("pruned", 3)
    assert states[1e-3][0] == "done"
    assert states[1e-3][2].expected == whole[1e-3]
    assert not list(tmp_path.glob("beside/*/state/point.safetensors"))


def test_a_search_that_was_killed_goes_on_side_by_side(
    mini: Path, tmp_path: Path, groups: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs import trial

    line: tuple[Any, ...] = ("search", "--task", "mini/mood", "--over", "lr=1e-4..1e-1:log")
    line = (*line, *SHORT, "--json", "--trials", 5, "--side-by-side", 3, "--runs")
    whole = mtl(*line, tmp_path / "whole").json
    real, left = trial._end, iter([True] * 4)

    def killed(*given: Any, **more: Any) -> Any:
        if not next(left, False):
            raise KeyError("killed")
        return real(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(trial, "_end", killed)
        with pytest.raises(KeyError, match="killed"):
            mtl(*line, tmp_path / "killed")
    assert len(list(tmp_path.glob("killed/*/trial.json"))) == 4
    groups.clear()
    assert tried_in(mtl(*line, tmp_path / "killed").json) == tried_in(whole)
    assert [len(group) for group in groups] == [2]  # one of the second three was tried


def test_auto_goes_one_by_one_where_that_is_as_fast(
    mini: Path, tmp_path: Path, groups: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.runs.beside.AUTO_HIDDEN", 1)
    line = (*SEARCH, "--trials", 1, "--side-by-side", "auto", "--runs", tmp_path)
    assert mtl(*line).code == 0
    assert groups == []


def test_a_search_of_a_study_takes_its_trials_side_by_side(
    mini: Path, tmp_path: Path, groups: list[list[str]]
) -> None:
    search = {"over": {"lr": [1e-3, 1e-2]}, "trials": 2, "task": "mood"}
    path = write_study(tmp_path, "joint", "compose", seeds=[0], tasks=["mood"], search=search)
    plan = plan_study(read_study(str(path)), Places(beside=3))
    (node,) = (node for node in plan.nodes.values() if node.cell.search)
    outcome = execute_task(
        Task(node.cell.key, node.cell, plan.desk.places, node.runhash), plan.desk
    )
    assert outcome.status == "done", outcome.error
    assert [len(group) for group in groups] == [3]
    refused(mtl("study", "run", path, "--side-by-side", "some"), "--side-by-side some")


def test_a_number_that_is_none_is_refused_before_anything_is_tried(mini: Path) -> None:
    for line in (SEARCH, ("compose", "--target", TARGET, "--sources", "best")):
        refused(mtl(*line, "--side-by-side", 0), "--side-by-side 0")
