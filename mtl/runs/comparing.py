"""What is compared when an entry is evaluated again: answers, and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RunError
from mtl.tasks import score

if TYPE_CHECKING:
    from mtl.engine import Evaluation
    from mtl.zoo import Predictions

METRIC_TOLERANCE = 1e-6


def own_metrics(told: Mapping[str, Any], stored: Predictions, again: Evaluation) -> list[str]:
    """Whether the stored predictions give the stored metrics, on the rows they are of."""
    try:
        found = score(again.spec, stored.prediction, stored.label, again.table)
    except (RunError, ValueError) as error:
        return [f"its stored predictions cannot be scored: {error}"]
    return [
        f"its stored predictions give {name} {value:.6f}, its manifest says {_text(told[name])}"
        for name, value in found.items()
        if name in told and not _near(told[name]["value"], value, METRIC_TOLERANCE)
    ]


def compare_answers(
    stored: Predictions, again: Evaluation, split: str, tolerance: float
) -> tuple[list[str], float, float]:
    """What differs between the answers stored and given again, on a split.

    Returns:
        Problems, the largest difference of a score (infinite where nothing can be compared), and
        the share of equal predictions.
    """
    if not np.array_equal(stored.row, again.row):
        message = f"it stores {len(stored.row)} predictions, the {split} split has {len(again.row)}"
        return [f"{message} rows, or others"], float("inf"), 0.0
    if stored.scores.shape != again.scores.shape:
        shapes = f"{stored.scores.shape}, the model gives {again.scores.shape}"
        return [f"its stored scores have the shape {shapes}"], float("inf"), 0.0
    problems = []
    if not np.allclose(stored.label, again.label, atol=1e-6):
        problems.append("its stored labels are not those of the data")
    gap = np.abs(stored.scores.astype(np.float64) - again.scores)
    difference = float(gap.max()) if gap.size else 0.0
    equal = float(np.mean(stored.prediction == again.prediction)) if again.prediction.size else 1.0
    if not difference <= tolerance:  # NaN is not near
        problems.append(
            f"its scores differ by up to {difference:.3g} (allowed: {tolerance:g}) from the stored "
            f"ones; {equal:.2%} of {len(again.row)} predictions are equal"
        )
    return problems, difference, equal


def pair_metrics(
    stored: Mapping[str, Any], again: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """Metric → its value as stored (its manifest's items) and again, None where there is none."""
    return {
        name: {"stored": item["value"], "again": again.get(name)} for name, item in stored.items()
    }


def far_metrics(
    split: str, metrics: Mapping[str, Mapping[str, float | None]], tolerance: float
) -> list[str]:
    """A split whose predictions are not stored is compared by its metrics alone."""
    return [
        f"{name} on {split} is {pair['again']}, its manifest says {pair['stored']}"
        for name, pair in metrics.items()
        if not _near(pair["stored"], pair["again"], tolerance)
    ]


def _near(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None or not np.isfinite(other):
        return one is None and (other is None or not np.isfinite(other))
    return abs(one - other) <= tolerance


def _text(item: Mapping[str, Any]) -> str:
    return "none" if item["value"] is None else f"{item['value']:.6f}"
