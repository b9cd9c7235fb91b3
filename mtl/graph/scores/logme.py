"""LogME: how probable are the labels, given the features, under the best Bayesian linear model?

For features F (n,D) and one column y (n,) of the labels, ``w ~ N(0, I/alpha)`` and
``y ~ N(F w, I/beta)``. The score is the log marginal likelihood, maximised over alpha and beta, per
row, averaged over the columns (You et al. 2021, arXiv:2102.11005)::

    L(alpha, beta) = n/2 log beta + D/2 log alpha − n/2 log 2π
                     − beta/2 |F m − y|² − alpha/2 |m|² − 1/2 log |A|
    A = alpha I + beta FᵀF,   m = beta A⁻¹ Fᵀ y

The maximum is found by MacKay's fixed point in the singular basis of F, so that every step costs
O(min(n,D)) (You et al. 2022, JMLR 23, algorithm 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.graph.scores.base import Array, Candidate, Score

STEPS = 200
TOLERANCE = 1e-6
"""Relative change of alpha/beta at which the fixed point is taken for found."""


def columns_of(labels: NDArray[np.generic], kind: str) -> Array:
    """Labels as columns: one-hot classes (n,C), or values and label sets as they are."""
    if kind == "classification":
        classes = np.unique(labels)
        return (labels[:, None] == classes[None, :]).astype(np.float64)
    return np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)


def logme(features: Array, columns: Array) -> float:
    """Mean over the columns of the maximised log evidence per row.

    Args:
        features: (n,D).
        columns: (n,C).
    """
    features = np.asarray(features, dtype=np.float64)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    # directions without variance carry no evidence, only rounding
    kept = singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps
    left, squared = left[:, kept], singular[kept] ** 2
    found = [_evidence(left, squared, column) for column in np.asarray(columns).T]
    return float(np.mean(found))


def _evidence(left: Array, squared: Array, y: Array) -> float:
    n = len(y)
    along = (left.T @ y) ** 2
    beside = max(float(y @ y - along.sum()), 0.0)  # what no w can reach
    alpha = beta = 1.0
    tiny = np.finfo(np.float64).tiny
    for _ in range(STEPS):
        ratio = alpha / beta
        gamma = float((squared / (squared + ratio)).sum())
        length = float((squared * along / (squared + ratio) ** 2).sum())
        residual = float((along / (1 + squared / ratio) ** 2).sum()) + beside
        alpha = gamma / max(length, tiny)
        beta = max(n - gamma, tiny) / max(residual, tiny)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    ratio = alpha / beta
    length = float((squared * along / (squared + ratio) ** 2).sum())
    residual = float((along / (1 + squared / ratio) ** 2).sum()) + beside
    # log |A| = Σ log(alpha + beta s) over the rank, plus (D − rank) log alpha
    evidence = (
        n / 2 * np.log(beta)
        + len(squared) / 2 * np.log(alpha)
        - n / 2 * np.log(2 * np.pi)
        - beta / 2 * residual
        - alpha / 2 * length
        - 0.5 * np.log(alpha + beta * squared).sum()
    )
    return float(evidence / n)


def _score(candidate: Candidate) -> float:
    target = candidate.target
    assert candidate.features is not None
    assert target.labels is not None
    return logme(candidate.features, columns_of(target.labels, target.kind))


SCORE = Score(
    name="logme",
    summary="log evidence of the labels under a Bayesian linear model of the source's features",
    citation="You et al. 2021, arXiv:2102.11005",
    needs=("target.labels", "features"),
    function=_score,
    features=True,
)
