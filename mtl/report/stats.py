"""Means with intervals, and gains paired by seed and by test example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mtl.zoo import Predictions

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its interval; ``low`` and ``high`` are None where n < 2."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the width of a symmetric interval."""
        return None if self.high is None else self.high - self.mean

    @property
    def caveat(self) -> str | None:
        """Why the interval says nothing: of one value, or of several that are all equal."""
        if self.half is None:
            return "one seed has no interval" if self.n == 1 else None
        if self.half <= 1e-12 * max(1.0, abs(self.mean)):
            return f"all {self.n} seeds gave one value"
        return None

    def to_dict(self) -> dict[str, float | int | str | None]:
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "caveat": self.caveat,
        }


def interval_text(value: Interval, *, sign: bool = False, mark: str = "") -> str:
    """``0.9000 ± 0.0210``; ``– `` for an interval that there is none of, or that says nothing.

    Args:
        sign: of a difference: with + or −.
        mark: behind the mean.
    """
    mean = f"{value.mean:+.4f}" if sign else f"{value.mean:.4f}"
    half = "–" if value.half is None or value.caveat else f"{value.half:.4f}"
    return f"{mean}{mark} ± {half}"


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and Student-t interval: ``mean ± t(level, n−1) · s / sqrt(n)``.

    Raises:
        ValueError: no values.
    """
    from scipy.stats import t

    if not values:
        raise ValueError("an interval of no values")
    data = np.asarray(values, dtype=np.float64)
    mean, n = float(data.mean()), len(data)
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(t.ppf(0.5 + level / 2, n - 1) * data.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_gain(
    own: Mapping[int, float], composed: Mapping[int, float], level: float = LEVEL
) -> Interval | None:
    """Interval of composed − own over the seeds that both have; None if they share none."""
    seeds = sorted(own.keys() & composed.keys())
    if not seeds:
        return None
    return mean_interval([composed[seed] - own[seed] for seed in seeds], level)


def paired_bootstrap(
    metric: str,
    own: Sequence[Predictions],
    composed: Sequence[Predictions],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Percentile interval of the gain over the choice of test examples.

    Every draw resamples the examples, the same ones for both sides and for all seeds, and averages
    the difference of ``metric`` over the seeds. It says what another test set could have shown;
    :func:`paired_gain` says what other seeds could have.

    Args:
        own, composed: predictions of one split, seed by seed.

    Returns:
        (low, high), or None where the pairs do not cover the same rows, or where an example of
        the metric is a group of rows, which predictions do not tell.
    """
    from mtl.tasks import METRICS

    if not own or len(own) != len(composed):
        return None
    first = own[0].row
    if any(not np.array_equal(item.row, first) for item in [*own, *composed]):
        return None
    compute = METRICS.get(metric).compute
    if compute is None:
        return None
    rng = np.random.default_rng(seed)
    gains = np.empty(draws)
    for draw in range(draws):
        counts = np.bincount(rng.integers(0, len(first), len(first)), minlength=len(first))
        kept = np.flatnonzero(counts)
        weight = counts[kept].astype(np.float64)
        gains[draw] = np.mean(
            [
                compute(b.label[kept], b.prediction[kept], weight)
                - compute(a.label[kept], a.prediction[kept], weight)
                for a, b in zip(own, composed, strict=True)
            ]
        )
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(gains, [tail, 100 - tail])
    return float(low), float(high)
