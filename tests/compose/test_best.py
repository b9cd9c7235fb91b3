"""The search behind ``--sources best``: what it finds, what it costs, what it never does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mtl.compose.best import Candidate, Choice, Judge, search
from mtl.compose.limits import expected_cost
from mtl.errors import RequestError

TASKS = ("a", "b", "c", "d", "own")


def found_in(
    worth: Mapping[tuple[str, ...], float],
    *,
    used: Mapping[tuple[str, float | None], float] | None = None,
    budget: float = 12.0,
    methods: tuple[str, ...] = ("average", "scalearn"),
    suggested: tuple[tuple[str, ...], ...] = (),
    **judging: Any,
) -> Choice:
    """A search where a set is worth ``worth`` (0.5 where it says nothing), a use ``used`` more."""

    def score(candidate: Candidate, share: float) -> tuple[float, float]:
        extra = (used or {}).get((candidate.method, candidate.start), 0.0)
        return worth.get(candidate.sources, 0.5) + extra, 0.01

    return search(
        TASKS,
        methods,
        Judge(score, "accuracy", 300, **judging),
        budget=budget,
        starts={"scalearn": 2.0},
        suggested=suggested,
    )


def test_a_single_source_that_all_others_spoil_is_found() -> None:
    choice = found_in({("b",): 0.7, TASKS: 0.6})
    assert choice.chosen == Candidate(("b",), "average")
    assert choice.cost <= choice.budget
    assert [item.candidate.sources for item in choice.tried if item.stage == "single"] == [
        *((task,) for task in TASKS),
        TASKS,
    ]


def test_all_together_are_found_though_no_part_of_them_is_good() -> None:
    assert found_in({TASKS: 0.8}).chosen == Candidate(TASKS, "average")


def test_a_pair_is_grown_from_the_best_source_in_the_order_given() -> None:
    choice = found_in({("d",): 0.6, ("a", "d"): 0.65, ("a", "b", "d"): 0.7})
    assert choice.chosen == Candidate(("a", "b", "d"), "average")


def test_the_use_decides_between_equal_sets() -> None:
    for key in (("scalearn", None), ("scalearn", 1.0)):
        choice = found_in({("c",): 0.7}, used={key: 0.05})
        assert choice.chosen == Candidate(("c",), *key)


def test_the_other_start_is_never_the_usual_one() -> None:
    choice = found_in({("a",): 0.7, ("a", "b"): 0.71, ("a", "b", "c"): 0.72})
    starts = {
        (len(item.candidate.sources), item.candidate.start)
        for item in choice.tried
        if item.candidate.method == "scalearn"
    }
    assert (2, 2.0) not in starts
    assert {(3, None), (3, 1.0), (5, None)} <= starts
    choice = found_in({("a",): 0.7, TASKS: 0.6}, budget=40.0)
    starts = {
        (len(item.candidate.sources), item.candidate.start)
        for item in choice.tried
        if item.candidate.method == "scalearn"
    }
    assert {(1, None), (1, 1.0), (5, None), (5, 1.0), (5, 5.0)} <= starts


def test_of_equals_the_one_with_fewer_sources_wins() -> None:
    choice = found_in({("a",): 0.7, TASKS: 0.7, ("a", "b"): 0.7})
    assert choice.chosen == Candidate(("a",), "average")


@pytest.mark.parametrize("budget", [2.25, 3.0, 4.0, 6.0, 9.0, 12.0, 40.0])
def test_the_budget_is_kept_and_the_last_trial_is_a_full_one(budget: float) -> None:
    choice = found_in({("b",): 0.7}, budget=budget)
    assert choice.cost <= budget
    assert choice.chosen is not None
    assert choice.chosen.sources == ("b",)
    last = choice.tried[-1]
    assert (last.stage, last.share) == ("full", 1.0)
    assert choice.cost <= expected_cost(len(TASKS), 2)


def test_a_budget_that_is_too_small_is_refused_with_what_it_takes() -> None:
    with pytest.raises(RequestError, match=r"takes 2\.25; 12 is usual"):
        found_in({}, budget=2.0)


def test_undefined_is_worst_and_one_source_is_enough() -> None:
    def score(candidate: Candidate, share: float) -> tuple[float | None, float | None]:
        return (None, None) if candidate.sources == ("a",) else (0.1, None)

    choice = search(("a", "b"), ["fusion"], Judge(score, "f1", 50))
    assert choice.chosen == Candidate(("b",), "fusion")
    one = search(("a",), ["fusion"], Judge(score, "f1", 50))
    assert one.chosen == Candidate(("a",), "fusion")


def test_no_trial_is_made_twice_and_the_record_tells_all_of_them() -> None:
    choice = found_in({("b",): 0.7, ("a", "b"): 0.71})
    keys = [(item.candidate, item.share) for item in choice.tried]
    assert len(set(keys)) == len(keys)
    told = choice.to_dict()
    assert len(told["tried"]) == len(keys)
    assert told["chosen"]["sources"] == choice.chosen.sources  # type: ignore[union-attr]
    assert "◀" in choice.text()


def test_settled_sets_are_not_tried_again_before_they_are_trained_in_full() -> None:
    choice = found_in({("b",): 0.7, TASKS: 0.6}, settled=["average"])
    assert {t.candidate.method for t in choice.tried if t.stage == "used"} == {"scalearn"}
    assert choice.chosen == Candidate(("b",), "average")


def test_the_best_of_every_composition_is_trained_in_full() -> None:
    choice = found_in({}, used={("average", None): 0.3}, settled=["average"])
    methods = [t.candidate.method for t in choice.tried if t.stage == "full"]
    assert sorted(set(methods)) == ["average", "scalearn"]


def test_a_suggested_set_and_all_sources_are_tried() -> None:
    choice = found_in({("a", "c", "own"): 0.8}, suggested=(("own", "c", "a"),))
    assert choice.chosen == Candidate(("a", "c", "own"), "average")
    used = {t.candidate.sources for t in choice.tried if t.stage == "used"}
    assert TASKS in used


def test_prices_are_what_is_paid_and_what_comes_before_is_counted() -> None:
    prices = {"price": lambda candidate, share: share / 10}
    choice = found_in({("b",): 0.7}, beside={"own": 2.0}, **prices)
    assert choice.cost == pytest.approx(2.0 + sum(t.share / 10 for t in choice.tried))
    with pytest.raises(RequestError, match=r"takes 2\.2"):
        found_in({}, budget=2.1, beside={"own": 2.0}, **prices)
