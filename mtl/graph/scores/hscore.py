"""H-score: how much of the features' variance lies between the classes?

::

    H(F, y) = tr( cov(F)⁻¹ cov(E[F | y]) )

(Bao et al. 2019, "An information-theoretic approach to transferability in task transfer learning",
ICIP). With fewer rows than dimensions cov(F) cannot be inverted; as in Ibrahim et al. 2021,
arXiv:2110.06893, both covariances are shrunk by the share ``s`` of Ledoit and Wolf::

    H_s = (1 − s) tr( cov_s(F)⁻¹ cov(E[F | y]) ),   cov_s = (1 − s) cov + s tr(cov)/D I
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtl.graph.scores.score import Array, Candidate, Score


def h_score(features: Array, labels: NDArray[np.generic], *, shrink: bool = True) -> float:
    """The H-score of features (n,D) for classes (n,).

    Args:
        shrink: False for the original: the pseudo-inverse of the plain covariance.
    """
    from sklearn.covariance import ledoit_wolf

    centred = np.asarray(features, dtype=np.float64) - features.mean(0)
    means = np.zeros_like(centred)
    for label in np.unique(labels):
        means[labels == label] = centred[labels == label].mean(0)
    between = means.T @ means / len(means)
    if not shrink:
        within = centred.T @ centred / len(centred)
        return float(np.trace(np.linalg.pinv(within, rcond=1e-10, hermitian=True) @ between))
    shrunk, share = ledoit_wolf(centred, assume_centered=True)
    return float((1 - share) * np.trace(np.linalg.solve(shrunk, between)))


def _score(candidate: Candidate) -> float:
    assert candidate.features is not None
    assert candidate.target.labels is not None
    return h_score(candidate.features, candidate.target.labels)


SCORE = Score(
    name="hscore",
    summary="share of the features' variance that lies between classes, shrunk",
    citation="Bao et al. 2019, ICIP; Ibrahim et al. 2021, arXiv:2110.06893",
    needs=("target.labels", "features"),
    function=_score,
    kinds=("classification",),
    features=True,
)
