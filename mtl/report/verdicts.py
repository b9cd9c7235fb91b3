"""One figure of ours against a published one: equivalence, difference, or not enough seeds.

With mean x̄ and standard deviation s of our n runs, and a published mean x₀ of n₀ runs:

    d = x̄ − x₀        SE = sqrt(s²/n + s₀²/n₀)

s₀ := s where the source prints no spread, and n₀ := 1 where it says nothing of its runs; both are
said. Then d/SE has n−1 degrees of freedom; with a printed s₀ Welch's number of them.

A margin δ says how far two publications of the same method differ anyway (:data:`MARGINS`).
*Reproduced*: the 90 % interval lies inside ±δ, which is two one-sided tests at 5 % (TOST;
Schuirmann 1987). *Better*, *worse*: |d| > δ, and d is not 0 at 5 % after Holm's correction over the
table. *Unresolved*: the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from mtl.report.stats import t_above, t_beyond

MARGINS = {
    "glue/mnli": 0.31,
    "glue/qnli": 0.36,
    "glue/sst2": 0.29,
    "glue/qqp": 0.25,
    "glue/mrpc": 0.31,
    "glue/cola": 0.38,
    "glue/rte": 0.74,
    "glue/stsb": 0.27,
}
"""δ in points by task, fixed before any comparison: the root mean square, over five pairs, of how
far two publications of one method on one base differ. The pairs: Pfeiffer 48 and AdaKron 48 in
AdaKron's README and poster; full fine-tuning, LoRA (r=8) and AdaLoRA in SoRA's and AdaLoRA's
tables. A test computes them again from the files."""
AVERAGE_MARGINS = {"glue": 0.35}
"""δ in points of a suite's average."""
LEVEL = 0.05
MOST = 1000
"""Runs beyond which nobody is told how many are needed."""

REPRODUCED, BETTER, WORSE = "reproduced", "better", "worse"
UNRESOLVED, NO_MARGIN = "unresolved", "no δ"


@dataclass(frozen=True)
class Difference:
    """d = ours − published, in the unit of the table.

    Attributes:
        d, se, df: see the module; ``se`` is None of a single run, or of runs that are all alike.
        n, n0: runs behind ours and behind the published figure.
        s: standard deviation of ours, None of a single run.
        assumed: what of the published figure was not known, and taken to be.
    """

    d: float
    se: float | None
    df: float
    n: int
    n0: int
    s: float | None
    assumed: tuple[str, ...] = ()

    def interval(self, level: float = 0.9) -> tuple[float, float] | None:
        """``d ± t((1 + level)/2, df) · SE``."""
        if self.se is None:
            return None
        half = float(t_above(0.5 - level / 2, self.df)) * self.se
        return self.d - half, self.d + half

    def p_zero(self) -> float | None:
        """Two-sided p of "the difference is 0"."""
        return None if self.se is None else float(2 * t_beyond(abs(self.d) / self.se, self.df))

    def p_far(self, margin: float) -> float | None:
        """p of "the difference is ±margin or more": the larger of TOST's two."""
        if self.se is None:
            return None
        return float(t_beyond((margin - abs(self.d)) / self.se, self.df))


def difference(
    ours: Sequence[float],
    published: float,
    runs: int | None,
    std: float | None = None,
) -> Difference:
    """Our runs against a published mean, see the module.

    Args:
        ours: one value per seed, in the unit of ``published``.
        runs: n₀, None where it is not stated.
        std: s₀, None where it is not stated.

    Raises:
        ValueError: no runs of ours.
    """
    if not ours:
        raise ValueError("a difference of no runs")
    data = np.asarray(ours, dtype=np.float64)
    n, n0, d = len(data), runs or 1, float(data.mean() - published)
    assumed = [] if runs else ["n₀ = 1"]
    if n < 2:
        return Difference(d, None, 0.0, n, n0, None, tuple(assumed))
    s = float(data.std(ddof=1))
    if std is None:
        assumed.append("s₀ = s")
    own, other = s**2 / n, (s if std is None else std) ** 2 / n0
    if s <= 1e-12 * max(1.0, abs(published)) and own + other < 1e-20:
        return Difference(d, None, 0.0, n, n0, s, tuple(assumed))
    df = float(n - 1)
    if std is not None:
        parts = own**2 / (n - 1) + (other**2 / (n0 - 1) if n0 > 1 else 0.0)
        df = (own + other) ** 2 / parts if parts > 0 else float(max(n0 - 1, 1))
    return Difference(d, sqrt(own + other), df, n, n0, s, tuple(assumed))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure (1979), in the order given.

    p̃_(i) = max over j ≤ i of min(1, (m − j + 1) · p_(j)), p_(1) ≤ … ≤ p_(m).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def verdict(found: Difference, margin: float | None, p_adjusted: float | None) -> str:
    """What a cell is: see the module; ``no δ`` where there is none to judge by.

    Args:
        p_adjusted: of :meth:`Difference.p_zero` after Holm's correction.
    """
    if margin is None:
        return NO_MARGIN
    far = found.p_far(margin)
    if far is not None and far <= LEVEL:
        return REPRODUCED
    if abs(found.d) > margin and p_adjusted is not None and p_adjusted <= LEVEL:
        return BETTER if found.d > 0 else WORSE
    return UNRESOLVED


def runs_needed(found: Difference, margin: float, tests: int = 1) -> int | None:
    """How many runs of ours (all together) decide an unresolved cell, if d and s stay as they are.

    Inside ±margin the fewest for which the 90 % interval fits into it; outside the fewest for which
    0 is left out at 5 % / ``tests``. The published figure keeps its n₀.

    Returns:
        None where s is not known, or where no number below :data:`MOST` decides it: then the
        published mean is itself too uncertain.
    """
    if not found.s:
        return None
    near = abs(found.d) <= margin
    room = margin - abs(found.d) if near else abs(found.d)
    tail = LEVEL if near else LEVEL / (2 * tests)
    runs = np.arange(max(2, found.n + 1), MOST + 1)
    errors = found.s * np.sqrt(1 / runs + 1 / found.n0)
    enough = np.flatnonzero(t_above(tail, runs - 1) * errors <= room)
    return int(runs[enough[0]]) if len(enough) else None


def variation(ours: float, published: float) -> float | None:
    """Coefficient of variation of two figures, in per cent, corrected for so few.

    CV* = (1 + 1/(4n)) · s*/x̄ · 100 with n = 2 and s* = s/c₄(2) = |a − b|·sqrt(π)/2
    (Belz et al. 2022, arXiv:2204.05961). None where the mean is not above 0.
    """
    mean = (ours + published) / 2
    return 112.5 * abs(ours - published) * sqrt(pi) / 2 / mean if mean > 0 else None


def power(
    margin: float, true: float, s: float, n: int, n0: int, *, draws: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Share of verdicts over simulated pairs of studies of one method.

    Ours is n runs from N(true, s), theirs the mean of n₀ runs from N(0, s); s₀ is not published.
    A table of one cell, so Holm's correction changes nothing.

    Returns:
        verdict → share of the draws.
    """
    rng = np.random.default_rng(seed)
    ours = rng.normal(true, s, (draws, n))
    theirs = rng.normal(0.0, s / sqrt(n0), draws)
    d = ours.mean(axis=1) - theirs
    se = ours.std(axis=1, ddof=1) * sqrt(1 / n + 1 / n0)
    reproduced = t_beyond((margin - np.abs(d)) / se, n - 1) <= LEVEL
    differs = (np.abs(d) > margin) & (2 * t_beyond(np.abs(d) / se, n - 1) <= LEVEL) & ~reproduced
    found = {REPRODUCED: reproduced, BETTER: differs & (d > 0), WORSE: differs & (d < 0)}
    shares = {name: float(which.mean()) for name, which in found.items()}
    return {**shares, UNRESOLVED: 1 - sum(shares.values())}
