"""Equivalence, difference, Holm, seeds that are needed: by hand and by simulation."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
import pytest

from mtl.report.published import load_published
from mtl.report.verdicts import (
    BETTER,
    MARGINS,
    NO_MARGIN,
    REPRODUCED,
    UNRESOLVED,
    WORSE,
    Difference,
    difference,
    holm,
    power,
    runs_needed,
    variation,
    verdict,
)


def test_a_difference_by_hand() -> None:
    found = difference([1.0, 2.0, 3.0], 1.5, 10)  # s = 1
    assert (found.d, found.df, found.assumed) == (0.5, 2.0, ("s₀ = s",))
    assert found.se == pytest.approx(sqrt(1 / 3 + 1 / 10))
    low, high = found.interval(0.9) or (0, 0)  # t(0.95, 2) = 2.919986
    assert high - low == pytest.approx(2 * 2.919986 * sqrt(1 / 3 + 1 / 10), rel=1e-6)
    t = 0.5 / sqrt(1 / 3 + 1 / 10)
    assert found.p_zero() == pytest.approx(1 - t / sqrt(t * t + 2))  # closed form of 2 degrees


def test_a_printed_spread_gives_welch() -> None:
    found = difference([1.0, 2.0, 3.0], 1.5, 4, std=2.0)
    own, other = 1 / 3, 4 / 4
    assert found.se == pytest.approx(sqrt(own + other))
    assert found.df == pytest.approx((own + other) ** 2 / (own**2 / 2 + other**2 / 3))
    assert found.assumed == ()


def test_one_run_and_equal_runs_have_no_interval() -> None:
    one = difference([70.0], 71.0, None)
    assert (one.d, one.se, one.n0, one.assumed) == (-1.0, None, 1, ("n₀ = 1",))
    alike = difference([63.46] * 5, 63.46, 10)
    assert (alike.se, alike.p_zero(), alike.interval()) == (None, None, None)
    for found in (one, alike):
        assert verdict(found, 0.5, None) == UNRESOLVED
        assert runs_needed(found, 0.5) is None
    with pytest.raises(ValueError, match="no runs"):
        difference([], 1.0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def found(d: float, se: float, df: float = 9.0) -> Difference:
    return Difference(d, se, df, 10, 10, se * sqrt(5))


@pytest.mark.parametrize(
    ("d", "se", "margin", "p", "said"),
    [
        (0.1, 0.1, 0.5, 0.3, REPRODUCED),  # 0.1 + 1.833·0.1 < 0.5
        (0.1, 0.1, 0.28, 0.3, UNRESOLVED),
        (0.1, 0.1, 0.29, 0.3, REPRODUCED),
        (0.3, 0.01, 0.5, 0.0, REPRODUCED),  # different, and not by much
        (0.6, 0.1, 0.5, 0.01, BETTER),
        (-0.6, 0.1, 0.5, 0.01, WORSE),
        (0.6, 0.1, 0.5, 0.06, UNRESOLVED),  # only before Holm's correction
        (0.4, 0.1, 0.5, 0.01, UNRESOLVED),  # not 0, not beyond the margin, not within it
        (9.0, 0.1, None, 0.0, NO_MARGIN),
    ],
)
def test_verdicts(d: float, se: float, margin: float | None, p: float, said: str) -> None:
    assert verdict(found(d, se), margin, p) == said


def decided(d: float, s: float, n: int, margin: float) -> str:
    cell = Difference(d, s * sqrt(1 / n + 1 / 10), n - 1.0, n, 10, s)
    return verdict(cell, margin, cell.p_zero())


@pytest.mark.parametrize(("d", "s", "margin"), [(0.1, 0.4, 0.5), (0.0, 0.5, 0.31), (0.8, 0.9, 0.5)])
def test_the_seeds_that_are_needed_are_the_fewest(d: float, s: float, margin: float) -> None:
    cell = Difference(d, s * sqrt(1 / 3 + 1 / 10), 2.0, 3, 10, s)
    assert decided(d, s, 3, margin) == UNRESOLVED
    needed = runs_needed(cell, margin)
    assert needed is not None
    assert decided(d, s, needed, margin) in (REPRODUCED, BETTER)
    assert decided(d, s, needed - 1, margin) == UNRESOLVED


def test_no_number_of_ours_helps_a_published_mean_of_one_run() -> None:
    cell = difference([1.0, 2.0, 3.0], 2.1, None)
    assert runs_needed(cell, 0.5) is None  # 1.645·s/sqrt(1) alone is wider


def test_the_margins_are_those_of_the_five_pairs() -> None:
    pairs = [
        ("adakron-readme", "AdaKron 48", "adakron-poster", "AdaKron 48"),
        ("adakron-readme", "Pfeiffer Adapter 48", "adakron-poster", "Pfeiffer Adapter 48"),
        ("sora-deberta", "Fine-Tune", "adalora-deberta", "Full FT"),
        ("sora-deberta", "LoRA (r=8)", "adalora-deberta", "LoRA (r=8)"),
        ("sora-deberta", "AdaLoRA", "adalora-deberta", "AdaLoRA 1.27M"),
    ]
    apart: dict[str, list[float]] = {task: [] for task in MARGINS}
    for one, row, other, same in pairs:
        first, second = load_published(one), load_published(other)
        for task in MARGINS:  # the first figure of a task: matched MNLI, accuracy of QQP
            sides = []
            for table, name in ((first, row), (second, same)):
                column = next(c for c in table.columns if c.task == task)
                sides.append(table.figure(table.row(name), column.name) or 0.0)
            apart[task].append(sides[0] - sides[1])
    rms = {task: round(float(np.sqrt(np.mean(np.square(d)))), 2) for task, d in apart.items()}
    assert rms == MARGINS


def test_variation_by_hand() -> None:
    # s = 2/sqrt(2), c₄(2) = sqrt(2/π): s* = sqrt(π); mean 81
    assert variation(82.0, 80.0) == pytest.approx((1 + 1 / 8) * sqrt(np.pi) / 81 * 100)
    assert variation(80.0, 80.0) == 0.0
    assert variation(-0.1, 0.05) is None


@pytest.mark.parametrize("n", [3, 5, 10])
def test_false_rates_are_nominal(n: int) -> None:
    """10,000 simulated replications: at the margin 5 % at most are called reproduced; of exact ones
    5 % at most are called better or worse."""
    sigma = 3 * sqrt(0.05 * 0.95 / 10_000)
    at_margin = power(0.5, 0.5, 0.1, n, 10)
    assert at_margin[REPRODUCED] == pytest.approx(0.05, abs=sigma)  # s small: one side alone counts
    for s in (0.1, 0.3, 1.0):
        assert power(0.5, 0.5, s, n, 10, seed=1)[REPRODUCED] <= 0.05 + sigma
        exact = power(0.5, 0.0, s, n, 10, seed=2)
        assert exact[BETTER] + exact[WORSE] <= 0.05 + sigma
    without = power(1e-9, 0.0, 1.0, n, 10, seed=3)  # no margin: the plain test, both sides
    assert without[BETTER] + without[WORSE] == pytest.approx(0.05, abs=sigma)


def test_the_simulation_says_what_the_verdict_says() -> None:
    margin, true, s, n, n0, draws = 0.5, 0.4, 0.35, 4, 10, 300
    rng = np.random.default_rng(0)
    ours = rng.normal(true, s, (draws, n))
    theirs = rng.normal(0.0, s / sqrt(n0), draws)
    cells = [difference(list(own), float(x), n0) for own, x in zip(ours, theirs, strict=True)]
    counted = Counter(verdict(cell, margin, cell.p_zero()) for cell in cells)
    assert len(counted) > 2
    for name, share in power(margin, true, s, n, n0, draws=draws).items():
        assert share == pytest.approx(counted[name] / draws)
