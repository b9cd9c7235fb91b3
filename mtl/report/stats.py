"""Means with intervals, and gains paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
    if not values:
        raise ValueError("an interval of no values")
    data = np.asarray(values, dtype=np.float64)
    mean, n = float(data.mean()), len(data)
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(t_above(0.5 - level / 2, n - 1) * data.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def t_above(tail: float, df: ArrayLike) -> Any:
    """What Student's t with ``df`` degrees of freedom exceeds with probability ``tail``.

    From ``scipy.special``: ``scipy.stats`` is longer in coming than a report of many rows.
    """
    from scipy.special import stdtrit

    return -stdtrit(df, tail)


def t_beyond(value: ArrayLike, df: ArrayLike) -> Any:
    """The probability that Student's t with ``df`` degrees of freedom exceeds ``value``."""
    from scipy.special import stdtr

    return stdtr(df, -np.asarray(value, dtype=np.float64))


def zero_p(values: Sequence[float]) -> float | None:
    """Two-sided p of "their mean is 0", a t test; None of one value, or of several all alike."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2 or mean_interval(values).caveat:
        return None
    error = data.std(ddof=1) / np.sqrt(len(data))
    return float(2 * t_beyond(abs(data.mean()) / error, len(data) - 1))


def paired_gain(
    own: Mapping[int, float], composed: Mapping[int, float], level: float = LEVEL
) -> Interval | None:
    """Interval of composed − own over the seeds that both have; None if they share none."""
    seeds = sorted(own.keys() & composed.keys())
    if not seeds:
        return None
    return mean_interval([composed[seed] - own[seed] for seed in seeds], level)
