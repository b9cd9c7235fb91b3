"""Linear probe: how well does a linear model read the labels out of the features?

Five-fold cross-validation on the target's training rows (dev and test stay unseen): accuracy of a
logistic regression, or R² of a ridge regression, on features that are standardised inside each fold
(Alain and Bengio 2016, arXiv:1610.01644; as a score of task transfer in Poth et al. 2021,
arXiv:2104.08247).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl.graph.scores.score import Array, Candidate, Score, Unscorable

FOLDS = 5
STRENGTH = 0.1
"""Inverse penalty of the logistic regression: there are often more dimensions than rows."""


def linear_model(kind: str, dimensions: int) -> Any:
    """An unfitted scikit-learn model over dense features: standardise, then logistic or ridge."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "regression":
        # in standardised units, one pseudo-observation per dimension
        return make_pipeline(StandardScaler(), Ridge(alpha=float(dimensions)))
    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500))


def probe(features: Array, labels: NDArray[np.generic], kind: str) -> float:
    """Mean accuracy (classification) or R² (regression) over the folds.

    Raises:
        Unscorable: a class with a single row, or fewer rows than two folds need.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

    if kind == "classification":
        rarest = int(np.unique(labels, return_counts=True)[1].min())
        if rarest < 2:
            raise Unscorable("a class has a single row, which cannot be in training and test fold")
        folds = StratifiedKFold(min(FOLDS, rarest), shuffle=True, random_state=0)
        metric = "accuracy"
    else:
        if len(labels) < 4:
            raise Unscorable(f"{len(labels)} rows are too few for cross-validation")
        folds = KFold(min(FOLDS, len(labels) // 2), shuffle=True, random_state=0)
        metric = "r2"
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a ranking does not need the last digit
        model = linear_model(kind, features.shape[1])
        found = cross_val_score(model, features, labels, cv=folds, scoring=metric)
    return float(np.mean(found))


def _score(candidate: Candidate) -> float:
    target = candidate.target
    assert candidate.features is not None
    assert target.labels is not None
    return probe(candidate.features, target.labels, target.kind)


SCORE = Score(
    name="probe",
    summary="cross-validated accuracy (or R²) of a linear model on the source's features",
    citation="Alain and Bengio 2016, arXiv:1610.01644",
    needs=("target.labels", "features"),
    function=_score,
    kinds=("classification", "regression"),
    features=True,
)
