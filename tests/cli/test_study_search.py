"""``search:`` in a study: settings are searched for first, and its runs take what was found."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_bench import digests, mtl, process, refused
from study_bench import SHORT, write_study

from mtl.study import Places, drive, execute_task, plan_study, read_study
from mtl.study.engines import Happened
from mtl.study.journal import Journal

SEARCH: dict[str, Any] = {
    "over": {"lr": {"log": [1e-4, 1e-1]}, "pfeiffer:bottleneck": [4, 8]},
    "trials": 2,
    "task": "mood",
}
SMALL: dict[str, Any] = {
    "seeds": [0],
    "tasks": ["same", "mood"],
    "compose": [{"method": "average", "targets": ["same"], "source_seeds": "same"}],
}


class Here:
    """An engine in this process, which keeps what it was given."""

    def __init__(self, plan: Any) -> None:
        self.desk, self.tasks, self.waiting = plan.desk, [], []

    def describe(self) -> str:
        return "here"

    def free(self) -> int:
        return 1 - len(self.waiting)

    def submit(self, task: Any) -> None:
        self.tasks.append(task)
        self.waiting.append(task)

    def wait(self, seconds: float) -> list[Happened]:
        given, self.waiting = self.waiting, []
        return [
            Happened("ended", task.key, "1", outcome=execute_task(task, self.desk))
            for task in given
        ]

    def close(self) -> None:
        pass


def planned(path: Path) -> dict[str, Any]:
    said = mtl("study", "plan", path, "--json")
    assert said.code == 0, said
    return said.json


def run_here(path: Path) -> tuple[Any, list[str]]:
    """The study run in this process, and the labels of what was run, in its order."""
    journal_of = read_study(str(path))
    plan = plan_study(journal_of, Places())
    engine = Here(plan)
    going = drive(plan, engine, Journal(plan.desk.workspace.runs, plan.study.name))
    assert not going.failed(), going.failed()
    return going, [going.label(task.key) for task in engine.tasks]


def test_runs_take_what_was_found(mini: Path, tmp_path: Path) -> None:
    """Searches first, in the plan and in time; by hand with the recipe the runs are the same."""
    path = write_study(tmp_path, "joint", search=SEARCH, **SMALL)
    before = planned(path)
    kinds = [(run["kind"], run["task"], run["state"]) for run in before["runs"]]
    assert kinds == [
        ("search", "mini/mood", "missing"),
        ("adapter", "mini/same", "waiting"),
        ("adapter", "mini/mood", "waiting"),
        ("search", "mini/mood", "waiting"),
        ("composition", "mini/same", "waiting"),
    ]
    # two trials and the settings as they are; four steps each
    assert [run["steps"] for run in before["runs"]] == [12, 4, 4, 12, 4]
    text = mtl("study", "plan", path).out
    assert "Searched first, at most 2 trials each and the settings as they are, on dev" in text
    assert "on dev, seeds 100" in text
    assert "mini/mood pfeiffer search: lr=0.0001..0.1:log pfeiffer:bottleneck=4|8" in text
    assert "mini/mood average search: lr=0.0001..0.1:log\n" in text

    _, order = run_here(path)
    assert order == [
        *("mini/mood pfeiffer search", "mini/same pfeiffer seed 0", "mini/mood pfeiffer seed 0"),
        *("mini/mood average search", "mini/same average seed 0"),
    ]
    after = planned(path)
    assert after["states"]["done"] == 5
    by_key = {run["key"]: run for run in after["runs"]}
    assert len(digests(mini)) == 3
    for run in after["runs"]:
        if run["kind"] == "search":
            recipe = Path(run["recipe"])
            assert run["recipe_sha256"] == hashlib.sha256(recipe.read_bytes()).hexdigest()
            beside = recipe.with_name(recipe.stem.replace("recipe", "trials"))
            assert "◀" in beside.with_suffix(".txt").read_text()
            assert beside.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
            continue
        assert run["recipe"] == by_key[run["search"]]["recipe"]
        door = ("train", "--task") if run["kind"] == "adapter" else ("compose", "--target")
        line = [*door, run["task"], "--method", run["method"], "--recipe", run["recipe"]]
        if run["kind"] == "composition":
            line += ["--sources", "same", "mood", "--source-seed", 0]
        line += ["--set", *(f"{key}={value}" for key, value in SHORT.items()), "--json"]
        (hand,) = mtl(*line).json["runs"]
        assert (hand["status"], hand["digest"]) == ("skipped", run["digest"])
    assert "recipe" in mtl("study", "plan", path).out
    # the report shows both searches, each with every trial, beside the runs that took its settings
    runs = ["--runs", by_key[after["runs"][0]["key"]]["recipe"].rpartition("/search/")[0]]
    assert mtl("report", "--suite", "mini", "--html", tmp_path / "a.html", *runs).code == 0
    page = (tmp_path / "a.html").read_text()
    for method in ("pfeiffer", "average"):
        assert f"Trials of {method} on mini/mood, best first" in page
    section = page.partition('id="searches"')[2].partition("</section>")[0]
    assert section.count("<figure>") == 2
    assert section.count("(without the search)") == 2
    assert "/mini/same/pfeiffer/seed0-" in section
    # the other task of the study has no exception of its own from what was found
    found = yaml.safe_load(Path(by_key[after["runs"][0]["key"]]["recipe"]).read_text())
    assert set(found["tasks"]["pfeiffer"]) == {"mini/same", "mini/mood"}
    assert run_here(path)[1] == []  # nothing is left to be run


def test_what_is_found_over_recipes_of_one_name_are_two(mini: Path, tmp_path: Path) -> None:
    """Both say the same of the searched task, and other things of the others."""
    found = []
    for folder, rate in (("a", 1e-3), ("b", 2e-3)):
        (tmp_path / folder).mkdir()
        tasks = {"pfeiffer": {"mini/same": {"lr": rate}}}
        recipe = {"name": "mine", "methods": {"pfeiffer": {"lr": 1e-2}}, "tasks": tasks}
        (tmp_path / folder / "mine.yaml").write_text(yaml.safe_dump(recipe))
        path = write_study(
            *(tmp_path / folder, "joint", "compose"),
            **{**SMALL, "compose": []},
            recipe="./mine.yaml",
            search={**SEARCH, "over": {"bottleneck": [4, 8]}},
        )
        found.append([run for run in planned(path)["runs"] if run["kind"] == "search"])
    ((one,), (other,)) = found
    assert (one["state"], other["state"]) == ("missing", "missing")
    assert one["runhash"] != other["runhash"]


def test_more_trials_go_on_and_make_other_runs_only_where_they_found_better(
    mini: Path, tmp_path: Path
) -> None:
    path = write_study(tmp_path, "joint", "compose", search=SEARCH, seeds=[0], tasks=["mood"])
    run_here(path)
    path = write_study(
        tmp_path, "joint", "compose", search={**SEARCH, "trials": 4}, seeds=[0], tasks=["mood"]
    )
    assert planned(path)["runs"][0]["state"] == "resumable"
    run_here(path)
    texts = sorted((tmp_path / "runs" / "search").glob("*/trials-*.txt"), key=os.path.getmtime)
    assert [len(text.read_text().splitlines()) for text in texts] == [3 + 4, 5 + 4]
    assert len({text.parent for text in texts}) == 1


def test_without_optuna_nothing_is_begun(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.search import searching

    monkeypatch.setattr(searching, "find_spec", lambda name: None)
    path = write_study(tmp_path, "joint", search=SEARCH, **SMALL)
    refused(mtl("study", "run", path), "pip install optuna")
    assert not list((tmp_path / "runs").glob("*/config.json"))


def test_each_task_on_its_own(mini: Path, tmp_path: Path) -> None:
    path = write_study(
        tmp_path, "joint", "compose", search={**SEARCH, "task": "each"}, seeds=[0, 1]
    )
    runs = planned(path)["runs"]
    searches = {run["key"]: run["task"] for run in runs if run["kind"] == "search"}
    assert sorted(searches.values()) == ["mini/mood", "mini/same", "mini/shared"]
    for run in runs:
        if run["kind"] == "adapter":
            assert [searches[need] for need in run["needs"]] == [run["task"]]


def test_what_is_set_otherwise_is_searched_otherwise(mini: Path, tmp_path: Path) -> None:
    """Few-shot rows and a grid: a search each, shared by the draws and seeds."""
    path = write_study(
        tmp_path,
        *("joint", "compose"),
        search=SEARCH,
        seeds=[0, 1],
        tasks=["mood"],
        train=[
            {
                "method": "pfeiffer",
                "set": {"dropout": [0.0, 0.1], "epochs": 1, "max_steps": 0},
                "shots": [0, 8],
                "shot_draws": [0, 1],
            }
        ],
    )
    runs = planned(path)["runs"]
    searched = [run["settings"] for run in runs if run["kind"] == "search"]
    assert sorted((run["dropout"], run.get("shots", 0)) for run in searched) == [
        *((0.0, 0), (0.0, 8), (0.1, 0), (0.1, 8))
    ]
    assert not any("shot_draw" in run for run in searched)
    assert len(runs) == 4 + 2 * 3 * 2


def test_a_study_without_it_has_the_keys_that_it_had(mini: Path, tmp_path: Path) -> None:
    """Journals of before know runs by these; with a search they are others."""
    from mtl.study import Cell

    cell = Cell(
        kind="composition",
        suite="mini",
        members=("same",),
        tasks=("same",),
        ids=("mini/same",),
        method="scalearn",
        seed=3,
        model=None,
        settings={"lr": 1e-3},
        sources=("all",),
        source_method="pfeiffer",
        source_seed=0,
    )
    assert cell.key == "03e2216777da1f56"
    plain = planned(write_study(tmp_path, "joint", **SMALL))["runs"]
    assert not any(key in run for run in plain for key in ("search", "recipe", "over"))
    searched = planned(write_study(tmp_path, "joint", search=SEARCH, **SMALL))["runs"]
    assert not {run["key"] for run in plain} & {run["key"] for run in searched}


def test_the_smoke_searches_too(mini: Path, tmp_path: Path) -> None:
    over = {"lr": {"log": [1e-4, 1e-2]}, "batch_size": [4, 8]}
    search = {"over": over, "task": "each", "trials": 30}
    path = write_study(tmp_path, "joint", "set", search=search, **SMALL)
    out, err = process("study", "run", path, "--smoke", "--workers", 1, "--json").communicate()
    runs = yaml.safe_load(out)["runs"]
    assert {run["status"] for run in runs} == {"done"}, (runs, err)
    assert [run["kind"] for run in runs].count("search") == 3
    assert {run["trials"] for run in runs if run["kind"] == "search"} == {1}
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_search(mini: Path, tmp_path: Path) -> None:
    path = write_study(
        tmp_path, *("joint", "compose"), search={**SEARCH, "trials": 6}, seeds=[0], tasks=["mood"]
    )
    run_here(path)
    expected = digests(mini)
    places = ["--zoo", tmp_path / "zoo-2", "--runs", tmp_path / "runs-2", "--workers", 1]
    line = ["study", "run", path, *places, "--json"]
    driver = process(*line)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "runs-2").glob("*/trial.json"))) < 3:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGTERM)
    driver.communicate(timeout=60)
    assert driver.returncode == 143
    states = {
        run["kind"]: run["state"]
        for run in mtl("study", "plan", path, *places[:4], "--json").json["runs"]
    }
    assert states == {"search": "resumable", "adapter": "waiting"}
    again = process(*line)
    out, err = again.communicate(timeout=280)
    assert again.returncode == 0, (out, err)
    assert digests(tmp_path / "zoo-2") == expected


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"search": {"over": {"lr": [1, 2]}}}, ("small.yaml, search", "task")),
    ({"search": {**SEARCH, "trails": 3}}, ("search", "Did you mean 'trials'?")),
    ({"search": {**SEARCH, "trials": 0}}, ("search, trials",)),
    ({"search": {**SEARCH, "by": "test"}}, ("by dev, not by 'test'",)),
    ({"search": {**SEARCH, "prune": "medain"}}, ("Did you mean 'median'?",)),
    ({"search": {**SEARCH, "task": "moood"}}, ("search, task", "Did you mean 'mini/mood'?")),
    ({"search": {**SEARCH, "seed": 1}}, ("seed 1", "train[0] has it, too", "such as 100")),
    ({"search": {**SEARCH, "over": {}}}, ("over names no setting",)),
    ({"search": {**SEARCH, "over": {"lr": 1e-3}}}, ("over.lr must be one of",)),
    ({"search": {**SEARCH, "over": {"lr": [1e-3]}}}, ("over.lr", "two values or more")),
    ({"search": {**SEARCH, "over": {"lr": {"lin": [1, 2]}}}}, ("over.lr must be one of",)),
    ({"search": {**SEARCH, "over": {"lr": {"log": [0, 1]}}}}, ("go up, from above 0",)),
    ({"search": {**SEARCH, "over": {"lr": ["a", "b"]}}}, ("search, over", "lr")),
    ({"search": {**SEARCH, "over": {"lrr": [1, 2]}}}, ("a setting 'lrr'", "Did you mean 'lr'?")),
    (
        {"search": {**SEARCH, "over": {"lr": [1e-3, 1e-2], "lora:rank": [2, 4]}}},
        ("search, over", "'lora'"),
    ),
    (
        {"search": {**SEARCH, "over": {"pfeiffer:rank": [2, 4], "lr": [0.1, 0.2]}}},
        ("pfeiffer has no setting 'rank'",),
    ),
    (
        {"search": {**SEARCH, "over": {"bottleneck": [4, 8]}}},
        ("names no setting of scalearn", "no trials where others have 2"),
    ),
    ({"search": SEARCH, "set": {"lr": 1e-3}}, ("train[0]", "lr is set, and searched for")),
    (
        {
            "search": SEARCH,
            "compose": [{"method": "scalearn", "sources": "best", "targets": ["same"]}],
        },
        ("compose[0]", "best", "Name them, or say all"),
    ),
    ({"search": {**SEARCH, "over": {"lr": [1e-3, -1.0]}}}, ("lr",)),
]


@pytest.mark.parametrize(
    ("changes", "said"), WRONG, ids=[str(index) for index in range(len(WRONG))]
)
def test_what_is_wrong_is_one_message(
    changes: dict[str, Any], said: tuple[str, ...], mini: Path, tmp_path: Path
) -> None:
    refused(mtl("study", "plan", write_study(tmp_path, **changes)), *said)
    assert not mini.exists()
