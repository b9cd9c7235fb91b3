"""LogME: how probable are the labels, given the features, under the best Bayesian linear model?

For features F (n,D) and one column y (n,) of the labels, ``w ~ N(0, I/alpha)`` and
``y ~ N(F w, I/beta)``. The score is the log marginal likelihood, maximised over alpha and beta, per
row, averaged over the columns (You et al. 2021, arXiv:2102.11005)::

    L(alpha, beta) = n/2 log beta + D/2 log alpha − n/2 log 2π
                     − beta/2 |F m − y|² − alpha/2 |m|² − 1/2 log |A|
    A = alpha I + beta FᵀF,   m = beta A⁻¹ Fᵀ y

The maximum is found by MacKay's fixed point in the singular basis of F, so that every step costs
O(min(n,D)) (You et al. 2022, JMLR 23, algorithm 3). With more rows than dimensions that basis comes
from FᵀF (D,D), which costs a quarter of the decomposition of F; directions below 3e-7 of the
largest, which is what single precision leaves of a feature, carry no evidence then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.graph.scores.score import Array, Candidate, Score, Unscorable

STEPS = 200
FAR = 1e-12
"""How far beyond the features' own scale alpha/beta is followed."""
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
        columns: (n,C); one without any entry is left out.

    Raises:
        Unscorable: no column has an entry.
    """
    features = np.asarray(features, dtype=np.float64)
    columns = np.asarray(columns, dtype=np.float64)
    rows, width = features.shape
    if rows > width:
        return logme_of_products(features.T @ features, features.T @ columns, columns)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    # directions without variance carry no evidence, only rounding
    kept = singular > singular[0] * max(rows, width) * np.finfo(np.float64).eps
    along = (left[:, kept].T @ columns) ** 2
    return _mean_evidence(singular[kept] ** 2, along, columns)


def logme_of_products(gram: Array, cross: Array, columns: Array) -> float:
    """The same from ``FᵀF`` (D,D), ``FᵀY`` (D,C) and Y (n,C): F itself need not be there."""
    squared, right = np.linalg.eigh(gram)
    kept = squared > squared[-1] * len(gram) * np.finfo(np.float64).eps
    squared, right = squared[kept], right[:, kept]
    return _mean_evidence(squared, (right.T @ cross) ** 2 / squared[:, None], columns)


def _mean_evidence(squared: Array, along: Array, columns: Array) -> float:
    # a label that no row has is certain whatever the features are: it tells sources not apart
    told = [(a, y) for a, y in zip(along.T, columns.T, strict=True) if y.any()]
    if not told:
        raise Unscorable("no row has any label")
    return float(np.mean([_evidence(squared, a, y) for a, y in told]))


def _evidence(squared: Array, along: Array, y: Array) -> float:
    """For squared singular values (r,) and the squared parts of y along their directions (r,)."""
    n, rank, tiny = len(y), len(squared), np.finfo(np.float64).tiny
    beside = max(float(y @ y - along.sum()), 0.0)  # what no w can reach

    def parts(ratio: float) -> tuple[float, float, float]:
        """Effective dimensions, |m|² and the residual at alpha/beta."""
        shrunk = squared + ratio
        return (
            float((squared / shrunk).sum()),
            float((squared * along / shrunk**2).sum()),
            float((along * (ratio / shrunk) ** 2).sum()) + beside,
        )

    # The maximum may lie at the end of a range: noise-free labels (beta → ∞), or features that say
    # nothing (alpha → ∞). The evidence has a limit there, so that a far ratio stands for it.
    least, most = (squared.min() * FAR, squared.max() / FAR) if rank else (1.0, 1.0)
    ratio = float(np.clip(1.0, least, most))
    alpha, beta = ratio, 1.0
    for _ in range(STEPS):
        gamma, length, residual = parts(ratio)
        alpha = gamma / max(length, tiny)
        beta = max(n - gamma, tiny) / max(residual, tiny)
        before, ratio = ratio, float(np.clip(alpha / beta, least, most))
        if abs(ratio - before) <= TOLERANCE * before:
            break
    gamma, length, residual = parts(ratio)
    if ratio >= most:
        beta = n / max(residual, tiny)
        alpha = ratio * beta
    elif ratio <= least:
        beta = alpha / ratio
    else:
        alpha = ratio * beta
    # log |A| = Σ log(alpha + beta s) over the rank, plus (D − rank) log alpha; beta taken out
    evidence = (
        (n - rank) / 2 * np.log(beta)
        + rank / 2 * np.log(alpha)
        - n / 2 * np.log(2 * np.pi)
        - beta / 2 * residual
        - alpha / 2 * length
        - 0.5 * np.log(ratio + squared).sum()
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
