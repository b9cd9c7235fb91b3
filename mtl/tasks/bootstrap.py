"""Metrics of many bootstrap samples at once: the formulas of scikit-learn and scipy on counts.

A sample says how often it drew each of P distinct (label, prediction) pairs, so S samples are a
matrix (S,P), and a metric is a few products with it. One call of the libraries per sample gives
the same numbers (a test holds them together) but takes seconds after every run.
"""

from __future__ import annotations

import numpy as np


def f1(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """2·tp / (2·tp + fp + fn) of class 1, 0 where there is none: (P,), (P,), (S,P) → (S,)."""
    hits, sizes = _class_counts(labels == 1, predictions == 1, counts)
    return _ratio(2 * hits, sizes)


def macro_f1(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean F1 over the classes that a sample holds, or over all labels of a multi-label task.

    Args:
        labels: (P,) class numbers, or (P,C) zeros and ones.
        predictions: likewise.
        counts: (S,P).
    """
    several = labels.ndim == 2
    classes = range(labels.shape[1]) if several else np.union1d(labels, predictions)
    total, present = np.zeros(len(counts)), np.zeros(len(counts))
    for name in classes:
        label = labels[:, name] == 1 if several else labels == name
        prediction = predictions[:, name] == 1 if several else predictions == name
        hits, sizes = _class_counts(label, prediction, counts)
        total += _ratio(2 * hits, sizes)
        present += 1 if several else sizes > 0
    return total / present


def matthews(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The correlation of class indicators, summed over classes; 0 where one side is constant.

    With c correct of n, and t_k rows of class k of which p_k are predicted:
    (c·n − Σ t_k·p_k) / sqrt((n² − Σ t_k²)·(n² − Σ p_k²)).
    """
    n = counts.sum(axis=1)
    right = counts @ (labels == predictions)
    both, true, guessed = np.zeros(len(n)), np.zeros(len(n)), np.zeros(len(n))
    for name in np.union1d(labels, predictions):
        rows, found = counts @ (labels == name), counts @ (predictions == name)
        both += rows * found
        true += rows**2
        guessed += found**2
    # Counts are whole numbers, so a constant side makes an exact 0 here.
    return _ratio(right * n - both, np.sqrt((n**2 - true) * (n**2 - guessed)))


def pearson(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """cov / (std · std) of the drawn rows, 0 where one side is constant: (P,), (P,), (S,P) → (S,).

    Labels and predictions may also be (S,P), one row per sample.
    """
    x, y = labels.astype(np.float64), predictions.astype(np.float64)
    n = counts.sum(axis=1, keepdims=True)
    # Values are centred before anything is squared: means far from 0 would eat the digits.
    x = x - (counts * x).sum(axis=1, keepdims=True) / n
    y = y - (counts * y).sum(axis=1, keepdims=True) / n
    over = np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))
    found = _ratio((counts * x * y).sum(axis=1), over)
    found[_constant(x, counts) | _constant(y, counts)] = 0.0
    return np.clip(found, -1.0, 1.0)


def spearman(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's correlation of ranks; equal values share their mean rank."""
    return pearson(_ranks(labels, counts), _ranks(predictions, counts), counts)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(S,P): the mean rank of each value among the rows that a sample drew."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = np.add.reduceat(counts[:, order], first, axis=1)
    ranks = np.cumsum(drawn, axis=1) - (drawn - 1) / 2
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(values)]))
    return ranks[:, group]


def _class_counts(
    label: np.ndarray, prediction: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """True positives and 2·tp + fp + fn of one class, per sample."""
    return counts @ (label & prediction), counts @ (label.astype(int) + prediction.astype(int))


def _constant(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    kept = counts > 0
    low = np.where(kept, values, np.inf).min(axis=1)
    return low == np.where(kept, values, -np.inf).max(axis=1)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
