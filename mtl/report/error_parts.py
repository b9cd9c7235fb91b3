"""The numbers of an error report: classes, confusions, calibration, residuals.

The metrics are scikit-learn's; what is undefined (the precision of a class that was never answered)
is None, not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
"""Bins of equal width in which calibration is measured."""
PARTS = 4
"""Ranges of the label by which residuals are listed, of equally many rows where labels allow."""


@dataclass(frozen=True)
class ClassRow:
    """One class: its rows ``n``, how often it was answered, and how well."""

    label: str
    n: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Confusion:
    """``matrix[i][j]``: rows of class i that were answered with j, in the order of ``labels``."""

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Pair:
    """``n`` rows of ``label``, a share of all of them, were answered with ``predicted``."""

    label: str
    predicted: str
    n: int
    share: float


@dataclass(frozen=True)
class Bin:
    """Rows with a confidence in (low, high]: its mean, and the share of right ones."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """``ece = Σ n_b / n · |right_b − confidence_b|``; empty bins are left out."""

    ece: float
    confidence: float
    right: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Range:
    """Rows whose label is from ``low`` to ``high``: mean residual and mean absolute residual."""

    low: float
    high: float
    n: int
    bias: float
    mae: float


@dataclass(frozen=True)
class Residuals:
    """Residuals r = answer − label.

    ``quantiles`` are those of r at 0, 0.05, 0.25, 0.5, 0.75, 0.95 and 1; ``mean_mae`` is what
    answering the mean label gives.
    """

    bias: float
    mae: float
    rmse: float
    mean_mae: float
    quantiles: tuple[float, ...]
    ranges: tuple[Range, ...]


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Of each row of (n,C), in fp64."""
    from scipy.special import softmax as stable

    found: np.ndarray = stable(np.asarray(scores, np.float64), axis=1)
    return found


def class_rows(
    label: np.ndarray, answer: np.ndarray, names: Sequence[str]
) -> tuple[tuple[ClassRow, ...], dict[str, float | None]]:
    """Every class with its precision, recall and F1, and their macro averages.

    Averages are over the classes in which the value is defined.

    Args:
        label, answer: (n,) numbers of classes, or (n,C) zeros and ones of a multi-label task.
    """
    from sklearn.metrics import precision_recall_fscore_support as measure

    places = list(range(len(names)))
    label, answer = np.asarray(label, np.int64), np.asarray(answer, np.int64)
    precision, recall, f1, n = measure(
        label, answer, labels=places, average=None, zero_division=np.nan
    )
    predicted = (
        answer.sum(axis=0) if answer.ndim == 2 else np.bincount(answer, minlength=len(names))
    )
    rows = tuple(
        ClassRow(
            names[place],
            int(n[place]),
            int(predicted[place]),
            *(_defined(values[place]) for values in (precision, recall, f1)),
        )
        for place in places
    )
    means = {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else None
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
    }
    return rows, means


def confuse(label: np.ndarray, answer: np.ndarray, names: Sequence[str]) -> Confusion:
    """The confusion matrix over all classes, those without a row included."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(label, answer, labels=np.arange(len(names)))
    return Confusion(tuple(names), tuple(tuple(map(int, row)) for row in matrix))


def most_confused(confusion: Confusion, top: int) -> tuple[Pair, ...]:
    """The pairs of different classes with most rows, at most ``top``."""
    matrix = np.asarray(confusion.matrix)
    size = matrix.sum(axis=1)
    off = matrix - np.diag(np.diag(matrix))
    share = off / np.maximum(size, 1)[:, None]
    order = np.lexsort((-share.ravel(), -off.ravel()))[:top]
    pairs = []
    for place in order:
        row, column = divmod(int(place), len(matrix))
        if off[row, column]:
            part = float(share[row, column])
            names = confusion.labels
            pairs.append(Pair(names[row], names[column], int(off[row, column]), part))
    return tuple(pairs)


def calibrate(confidence: np.ndarray, right: np.ndarray) -> Calibration | None:
    """The expected calibration error and its bins; None where a confidence is no number.

    Args:
        confidence: (n,) in [0, 1], the probability of the answer.
        right: (n,) whether it is right.
    """
    if not len(confidence) or not np.isfinite(confidence).all():
        return None
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for number in range(BINS):
        here = place == number
        if here.any():
            mean, share = float(confidence[here].mean()), float(right[here].mean())
            bins.append(Bin(number / BINS, (number + 1) / BINS, int(here.sum()), mean, share))
    ece = sum(item.n * abs(item.right - item.confidence) for item in bins) / len(confidence)
    return Calibration(ece, float(confidence.mean()), float(right.mean()), tuple(bins))


def residuals(label: np.ndarray, answer: np.ndarray) -> Residuals:
    """Residuals as a whole and by the range of the label."""
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    label = np.asarray(label, np.float64).reshape(-1)
    answer = np.asarray(answer, np.float64).reshape(-1)
    if not len(label) or not (np.isfinite(label).all() and np.isfinite(answer).all()):
        nothing = float("nan")
        return Residuals(nothing, nothing, nothing, nothing, (), ())
    off = answer - label
    edges = np.unique(np.quantile(label, np.linspace(0, 1, PARTS + 1)))
    inner = np.digitize(label, edges[1:-1], right=True)
    ranges = []
    for number in np.unique(inner):
        here = inner == number
        ranges.append(
            Range(
                float(label[here].min()),
                float(label[here].max()),
                int(here.sum()),
                float(off[here].mean()),
                float(np.abs(off[here]).mean()),
            )
        )
    return Residuals(
        bias=float(off.mean()),
        mae=float(mean_absolute_error(label, answer)),
        rmse=float(root_mean_squared_error(label, answer)),
        mean_mae=float(np.abs(label - label.mean()).mean()),
        quantiles=tuple(map(float, np.quantile(off, QUANTILES))),
        ranges=tuple(ranges),
    )


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
