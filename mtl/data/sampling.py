"""Which rows are kept where a limit keeps some: drawn by class, the same ones every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl.tasks.protocols import SEED

if TYPE_CHECKING:
    from mtl.tasks.spec import TaskSpec

BINS = 10
"""Strata of a regression: tenths of the rows by their value."""


def strata(spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
    """A number for every row, equal for rows that a draw takes alike.

    Of classes and choices the label, of a set of labels its rarest one, of a value its tenth; of
    spans and candidates there is one stratum.
    """
    if spec.kind in {"classification", "multiple_choice"}:
        return labels.astype(np.int64)
    if spec.kind == "multilabel":
        order = np.argsort(labels.sum(0), kind="stable")  # columns, the rarest label first
        found: np.ndarray = np.where(labels.any(1), labels[:, order].argmax(1), labels.shape[1])
        return found
    if spec.kind == "regression":
        rank = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        return rank * BINS // max(len(labels), 1)
    return np.zeros(len(labels), dtype=np.int64)


def spread(classes: np.ndarray, seed: int) -> np.ndarray:
    """An order of the rows whose every head has the classes in their shares, drawn by ``seed``.

    A head of at least as many rows as there are classes has a row of each. Fewer rows are a part
    of more.
    """
    # RandomState, because NumPy promises that its streams never change; Generator's may.
    mixed = np.random.RandomState(seed).permutation(len(classes))
    _, codes, sizes = np.unique(classes[mixed], return_inverse=True, return_counts=True)
    by_class = np.argsort(codes, kind="stable")
    turn = np.empty(len(classes), dtype=np.int64)  # how many of its class come before a row
    turn[by_class] = np.concatenate([np.arange(size) for size in sizes])
    # first one of each class, the largest class first; then each class spread evenly over the rest
    place = np.where(turn == 0, -1.0 - sizes[codes], (turn + 0.5) / sizes[codes])
    return mixed[np.lexsort((codes, place))]


def draw(classes: np.ndarray, count: int, seed: int = SEED) -> np.ndarray:
    """The places of ``count`` rows by class, ascending; all where there are no more."""
    return np.sort(spread(classes, seed)[:count])


def draw_whole(codes: np.ndarray, count: int, seed: int = SEED) -> np.ndarray:
    """The places of whole groups of rows, ``count`` rows at most but one group at least.

    Args:
        codes: the group of every row.
    """
    groups, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.random.RandomState(seed).permutation(len(groups))
    fitting = max(1, int(np.searchsorted(np.cumsum(sizes[order]), count, side="right")))
    return np.flatnonzero(np.isin(inverse, order[:fitting]))


def per_class(classes: np.ndarray, count: int, seed: int | None) -> np.ndarray:
    """The places of ``count`` rows of every class, of those with fewer all, ascending.

    Args:
        seed: of the draw; None takes the first ones.
    """
    order = np.arange(len(classes))
    if seed is not None:
        order = np.random.RandomState(seed).permutation(len(classes))
    kept = [order[classes[order] == one][:count] for one in np.unique(classes)]
    return np.sort(np.concatenate(kept))
