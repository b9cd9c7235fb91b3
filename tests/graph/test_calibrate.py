"""Calibration by hand: rank correlation, regret, blind choice, intervals, expected gain."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from mtl.errors import RequestError, ZooError
from mtl.graph import Evidence, build_graph
from mtl.graph.calibrate import (
    Trust,
    calibrate,
    calibration_file,
    expected_gains,
    random_regret,
    rank_correlation,
    read_calibration,
    regret,
    trust_text,
    write_calibration,
)

BASE = "ab" * 32


def pairs(scores: list[float], truth: list[float]) -> list[tuple[float, float]]:
    return list(zip(scores, truth, strict=True))


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.integers(0, 6, 9).astype(float), rng.normal(size=9)
        assert rank_correlation(pairs(list(x), list(y))) == pytest.approx(spearmanr(x, y)[0])
    assert rank_correlation(pairs([1, 2, 3], [1, 2, 3])) == pytest.approx(1.0)
    assert rank_correlation(pairs([1, 2, 3], [3, 2, 1])) == pytest.approx(-1.0)
    assert rank_correlation(pairs([1, 1, 1], [3, 2, 1])) == 0.0


def test_regret_by_hand() -> None:
    truth = [0.10, 0.30, 0.25, -0.05]
    assert regret(pairs([4, 3, 2, 1], truth), 1) == pytest.approx(0.20)
    assert regret(pairs([4, 3, 2, 1], truth), 2) == 0.0
    assert regret(pairs([4, 1, 2, 3], truth), 2) == pytest.approx(0.20)
    assert regret(pairs([4, 1, 2, 3], truth), 3) == pytest.approx(0.05)
    assert regret(pairs([4, 1, 2, 3], truth), 9) == 0.0
    # two equal scores at the border: 0.1 or 0.3 is taken, each half of the time
    assert regret(pairs([2, 2, 1, 0], truth), 1) == pytest.approx(0.10)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_a_blind_choice_is_the_mean_over_all_choices(k: int) -> None:
    truth = [0.3, -0.1, 0.2, 0.2, 0.05]
    every = [max(chosen) for chosen in itertools.combinations(truth, k)]
    assert random_regret(truth, k) == pytest.approx(0.3 - np.mean(every))
    assert regret(pairs([1.0] * 5, truth), k) == pytest.approx(random_regret(truth, k))


def edges(
    truth: dict[str, list[float]], scores: dict[str, dict[str, list[float]]], **changes: Any
) -> list[Evidence]:
    """Target → measured per source; score → target → value per source."""
    common = {"base": BASE, "rows": "r", **changes}
    found = [
        Evidence(f"s/{i}", target, "measured", "average", 9.9, dev=value, seeds=(0,), **common)
        for target, values in truth.items()
        for i, value in enumerate(values)
    ]
    return found + [
        Evidence(f"s/{i}", target, "predicted", score, value, **common)
        for score, targets in scores.items()
        for target, values in targets.items()
        for i, value in enumerate(values)
    ]


TRUTH = {"t/a": [0.0, 0.1, 0.2, 0.3], "t/b": [0.4, 0.1, 0.3, 0.2], "t/c": [-0.1, 0.0, 0.2, 0.1]}
GOOD = {task: [10 + 5 * value for value in values] for task, values in TRUTH.items()}
BAD = {task: [-value for value in values] for task, values in TRUTH.items()}


def test_a_good_score_is_trusted_and_a_bad_one_is_not() -> None:
    found = calibrate(build_graph([], edges(TRUTH, {"good": GOOD, "bad": BAD})), BASE)
    assert list(found.scores) == ["good", "bad"]
    good, bad = found.scores["good"], found.scores["bad"]
    assert (good.rho, good.low, good.high) == pytest.approx((1.0, 1.0, 1.0))
    assert (good.targets, good.pairs, good.over) == (3, 12, "targets")
    assert good.trusted
    assert not bad.trusted
    assert bad.rho == pytest.approx(-1.0)
    assert good.regret["1"] == (0.0, 0.0, 0.0)
    assert bad.regret["1"][0] == pytest.approx(np.mean([0.3, 0.3, 0.3]))
    assert bad.regret["3"][0] == pytest.approx(0.1)
    assert found.random["1"] == pytest.approx(
        np.mean([random_regret(v, 1) for v in TRUTH.values()])
    )
    assert found.best() == good
    assert "+1.00" in trust_text(good)
    assert trust_text(None) == "not calibrated here"


def test_verdicts() -> None:
    trust = Trust("s", 3, 9, 0.5, 0.1, 0.9, {"1": (0.0, None, None)}, 0.0, 0.0, 0.0, "targets")
    assert (trust.trusted, trust.verdict) == (True, "trusted")
    wrong = replace(trust, rho=-0.5, low=-0.9, high=-0.1)
    assert (wrong.trusted, wrong.verdict) == (False, "misleads")
    doubt = replace(trust, low=-0.1)
    assert (doubt.trusted, doubt.verdict) == (False, "in doubt")
    assert replace(trust, low=None, high=None).verdict == "in doubt"
    assert trust_text(wrong).startswith("misleads: rank correlation -0.50 [-0.90, -0.10]")


def test_choices_go_by_dev_and_reports_by_test(tmp_path: Path) -> None:
    items = edges(TRUTH, {"good": GOOD})
    turned = [
        replace(item, value=-item.dev) if item.dev is not None else item for item in items
    ]  # on test the other way round
    graph = build_graph([], turned)
    assert calibrate(graph, BASE).scores["good"].rho == pytest.approx(1.0)
    report = calibrate(graph, BASE, split="test")
    assert report.scores["good"].rho == pytest.approx(-1.0)
    write_calibration(tmp_path, report)
    assert read_calibration(tmp_path, BASE) is None
    blind = [replace(item, dev=None) for item in items]
    with pytest.raises(RequestError, match="no transfer was measured"):
        calibrate(build_graph([], blind), BASE)


def test_expected_gains_are_the_least_squares_line() -> None:
    rng = np.random.default_rng(0)
    noisy = {task: list(np.array(v) + rng.normal(0, 0.05, 4)) for task, v in TRUTH.items()}
    trust = calibrate(build_graph([], edges(TRUTH, {"noisy": noisy})), BASE).scores["noisy"]
    x, y = [], []
    for task, values in noisy.items():
        z = (np.array(values) - np.mean(values)) / np.std(values)
        x += list(z)
        y += TRUTH[task]
    slope, intercept = np.polyfit(x, y, 1)
    assert (trust.slope, trust.intercept) == pytest.approx((slope, intercept))
    rest = np.array(y) - slope * np.array(x) - intercept
    assert trust.residual == pytest.approx(np.sqrt((rest**2).sum() / 10))
    gains = expected_gains({"one": 1.0, "two": 3.0}, trust)
    assert gains == pytest.approx({"one": intercept - slope, "two": intercept + slope})
    assert expected_gains({"only": 5.0}, trust) == pytest.approx({"only": intercept})


def test_few_targets_are_resampled_over_sources_and_say_so() -> None:
    truth = {"t/a": [0.0, 0.1, 0.2, 0.3, 0.15]}
    scores = {"fair": {"t/a": [1.0, 3.0, 2.0, 5.0, 4.0]}}
    graph = build_graph([], edges(truth, scores))
    trust = calibrate(graph, BASE).scores["fair"]
    assert trust.over == "sources"
    assert trust.low is not None
    assert trust.high is not None
    assert trust.low < trust.rho < trust.high
    assert calibrate(graph, BASE) == calibrate(graph, BASE)  # the bootstrap is seeded


def test_what_is_not_compared() -> None:
    other = edges({"t/a": [0.9] * 4}, {"good": {"t/a": [0.0] * 4}}, base="cd" * 32)
    rows = edges({"t/a": [0.9] * 4}, {"good": {"t/a": [0.0] * 4}}, rows="other rows")
    own = [
        Evidence("t/a", "t/a", "measured", "average", 9.0, dev=9.0, base=BASE, rows="r"),
        Evidence("t/a", "t/a", "predicted", "good", -9.0, base=BASE, rows="r"),
    ]
    alone = {"few": {"t/a": [1.0, 2.0]}}
    graph = build_graph([], [*edges(TRUTH, {"good": GOOD, **alone}), *other, *own])
    found = calibrate(graph, BASE)
    assert found.scores["good"].rho == pytest.approx(1.0)
    assert found.scores["good"].pairs == 12
    assert "at most 2" in found.skipped["few"]
    both = calibrate(build_graph([], [*edges(TRUTH, {"good": GOOD}), *rows]), BASE)
    assert both.scores["good"].targets == 4  # other rows are another target, not another value


def test_the_composition_that_was_measured_most_counts() -> None:
    items = edges(TRUTH, {"good": GOOD})
    extra = [Evidence("s/0", "t/a", "measured", "fusion", 5.0, dev=5.0, base=BASE, rows="r")]
    graph = build_graph([], [*items, *extra])
    assert calibrate(graph, BASE).method == "average"
    with pytest.raises(RequestError, match="no target has 3 sources"):
        calibrate(graph, BASE, method="fusion")
    with pytest.raises(RequestError, match="there is average, fusion"):
        calibrate(graph, BASE, method="scalearn")


def test_nothing_to_calibrate() -> None:
    with pytest.raises(RequestError, match="no transfer was measured"):
        calibrate(build_graph([], edges({}, {"good": GOOD})), BASE)
    with pytest.raises(RequestError, match=r"mtl\.graph suggest"):
        calibrate(build_graph([], edges(TRUTH, {})), BASE)


def test_a_calibration_comes_back_as_it_was(tmp_path: Path) -> None:
    found = calibrate(build_graph([], edges(TRUTH, {"good": GOOD, "bad": BAD})), BASE)
    assert read_calibration(tmp_path, BASE) is None
    write_calibration(tmp_path, found)
    assert read_calibration(tmp_path, BASE) == found
    path = calibration_file(tmp_path, BASE)
    for damage in ("{", "{}", path.read_text().replace(BASE, "cd" * 32)):
        path.write_text(damage)
        with pytest.raises(ZooError):
            read_calibration(tmp_path, BASE)
