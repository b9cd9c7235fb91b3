"""Nearest neighbours: do rows that lie together have the same label?

Leave-one-out: each of the target's rows is judged by its five nearest others (cosine); accuracy of
their vote, equal votes counted by their share, or R² of their mean (Puigcerver et al. 2021,
"Scalable transfer learning with expert models", arXiv:2009.13239).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.graph.scores.score import Array, Candidate, Score, Unscorable

NEIGHBOURS = 5


def neighbours(features: Array, count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """(n,k) numbers of the nearest other rows by cosine distance.

    Raises:
        Unscorable: fewer than two rows.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(features) < 2:
        raise Unscorable("a single row has no neighbours")
    search = NearestNeighbors(n_neighbors=min(count, len(features) - 1), metric="cosine")
    # without an argument, a row is not its own neighbour
    return np.asarray(search.fit(features).kneighbors(return_distance=False), dtype=np.int64)


def knn(features: Array, labels: NDArray[np.generic], kind: str, count: int = NEIGHBOURS) -> float:
    """Leave-one-out accuracy (classification) or R² (regression). Raises as :func:`neighbours`."""
    near = neighbours(np.asarray(features, dtype=np.float64), count)
    if kind != "classification":
        values = np.asarray(labels, dtype=np.float64)
        error = float(((values - values[near].mean(1)) ** 2).sum())
        return 1 - error / float(((values - values.mean()) ** 2).sum())
    classes, numbers = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(labels), len(classes)))
    for column in near.T:
        votes[np.arange(len(labels)), numbers[column]] += 1
    best = votes == votes.max(1, keepdims=True)
    return float((best[np.arange(len(labels)), numbers] / best.sum(1)).mean())


def _score(candidate: Candidate) -> float:
    target = candidate.target
    assert candidate.features is not None
    assert target.labels is not None
    return knn(candidate.features, target.labels, target.kind)


SCORE = Score(
    name="knn",
    summary="leave-one-out accuracy (or R²) of the five nearest neighbours",
    citation="Puigcerver et al. 2021, arXiv:2009.13239",
    needs=("target.labels", "features"),
    function=_score,
    kinds=("classification", "regression"),
    features=True,
)
