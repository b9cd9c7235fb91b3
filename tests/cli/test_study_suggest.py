"""What to run next: worth of a run, and a replay of finished studies against the file's order."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean

import pytest
from cli_bench import mtl, refused
from study_bench import write_study
from test_light_doors import light

from mtl.study.suggest import State, choose

KEYS = tuple[str, str, int]


def test_more_runs_decide_more_and_unequal_variants_are_decided() -> None:
    close = State({"t": {"a": [0.70, 0.72], "b": [0.71, 0.73], "c": [0.90, 0.92]}})
    assert close.undecided("t", "a", "b") > 0.2
    assert close.undecided("t", "a", "c") < 1e-6
    assert close.worth("t", "a") > close.worth("t", "c") > 0
    assert close.count() == (2, 3)
    new = State({"t": {"a": [0.70, 0.72], "b": [0.71, 0.73], "c": []}})
    assert new.undecided("t", "a", "c") > 0.2
    assert new.worth("t", "c") > new.worth("t", "a")


def test_worth_is_the_expected_fall_of_what_is_undecided() -> None:
    """Against drawing the mean after one more run many times."""
    import math

    state = State({"t": {"a": [0.70, 0.72], "b": [0.71, 0.75]}})
    before = state.variance("t", "a")
    after, other = state.variance("t", "a", 1), state.variance("t", "b")
    rng = random.Random(1)
    gap = state.mean("t", "a") - state.mean("t", "b")
    left = [
        0.5
        * math.erfc(
            abs(gap + rng.gauss(0, math.sqrt(before - after))) / math.sqrt(2 * (after + other))
        )
        for _ in range(20_000)
    ]
    assert state.worth("t", "a") == pytest.approx(
        state.undecided("t", "a", "b") - fmean(left), abs=2e-3
    )


def test_the_budget_holds_and_sources_come_first() -> None:
    state = State({"t": {"a": [], "b": [0.5, 0.6]}})
    runs = {"source": [("s", "x")], "a": [("t", "a")], "dear": [("t", "b")]}
    state.values = {**state.values, "s": {"x": []}}
    state.__post_init__()
    picks = choose(state, runs, {"a": ["source"]}, {"source": 5, "a": 5, "dear": 500}, 20)
    assert [(pick.key, pick.needs) for pick in picks] == [("a", ("source",))]
    assert sum(pick.seconds for pick in picks) == 10


def replay(seed: int, hours: float) -> tuple[int, int]:
    """Comparisons decided within a time by greedy choice, a run at a time, and by file order.

    Six variants on three tasks, up to five seeds; two variants are nearly equal, tasks cost
    differently. Both see a run's value when it was made.
    """
    rng = random.Random(seed)
    tasks = {"small": 1.0, "middle": 4.0, "large": 20.0}
    mean = {(task, variant): rng.gauss(0.7, 0.05) for task in tasks for variant in "abcdef"}
    made = {key: [rng.gauss(value, 0.015) for _ in range(5)] for key, value in mean.items()}
    order = [(task, v, n) for v in "abcdef" for task in tasks for n in range(5)]

    def seen(done: set[KEYS]) -> State:
        return State(
            {
                task: {
                    v: [made[task, v][n] for n in range(5) if (task, v, n) in done]
                    for v in "abcdef"
                }
                for task in tasks
            }
        )

    def decided(done: set[KEYS]) -> int:
        return seen(done).count()[0]

    by_file: set[KEYS] = set()
    left = hours
    for key in order:
        if tasks[key[0]] > left:
            break
        left -= tasks[key[0]]
        by_file.add(key)
    greedy: set[KEYS] = set()
    left = hours
    while True:
        runs = {repr(key): [(key[0], key[1])] for key in order if key not in greedy}
        costs = {repr(key): tasks[key[0]] for key in order}
        picks = choose(seen(greedy), runs, {}, costs, left)
        if not picks:
            break
        (key,) = [key for key in order if repr(key) == picks[0].key]
        greedy.add(key)
        left -= tasks[key[0]]
    return decided(greedy), decided(by_file)


def test_in_replay_it_decides_more_than_the_order_of_the_file() -> None:
    found = [replay(seed, hours) for seed in range(3) for hours in (40, 120)]
    assert all(greedy >= by_file for greedy, by_file in found), found
    assert sum(greedy for greedy, _ in found) > 1.3 * sum(by_file for _, by_file in found), found


def test_the_command(stocked: Path, tmp_path: Path) -> None:
    path = write_study(
        tmp_path, "set", "compose", "joint", seeds=[0, 1], train=[{"method": ["pfeiffer", "lora"]}]
    )
    refused(mtl("study", "suggest", path, "--hours", "0"), "--hours must be above 0")
    assert mtl("study", "plan", path).code == 0
    said = light("study", "suggest", path, "--hours", "1", "--json")
    assert said.code == 0, said
    assert (said.json["decided"], said.json["comparisons"]) == (0, 3)
    runs = said.json["runs"]
    assert len(runs) == 9
    assert "lora" in runs[0]["label"]  # of which nothing is known
    assert "the median of the others is taken" in said.err
    assert mtl("study", "suggest", path, "--hours", "0.000001").out.count("No run of it fits") == 1
    other = write_study(tmp_path, "set", "compose", "joint", train=[{"method": "bitfit"}])
    refused(mtl("study", "suggest", other, "--hours", "1"), "--probe")
