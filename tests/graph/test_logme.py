"""LogME against the evidence that a general optimiser finds, limits, and cases by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from feature_bench import two_classes
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from mtl.graph.scores import Unscorable
from mtl.graph.scores.esm import apply_map, logme_of_map
from mtl.graph.scores.logme import columns_of, logme


def direct_evidence(features: Any, y: Any) -> float:
    """max over alpha, beta of log N(y; 0, F Fᵀ/alpha + I/beta) / n, by a general optimiser."""
    n = len(y)

    def negative(at: Any) -> float:
        alpha, beta = np.exp(at)
        cov = features @ features.T / alpha + np.eye(n) / beta
        return -float(multivariate_normal(np.zeros(n), cov).logpdf(y)) / n

    starts = [(0.0, 0.0), (3.0, 1.0), (-2.0, 2.0)]
    found = [
        minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
        for start in starts
    ]
    return -min(item.fun for item in found)


@pytest.mark.parametrize(("rows", "width"), [(30, 4), (24, 24), (20, 35)])
def test_logme_is_the_maximised_evidence(rows: int, width: int) -> None:
    features, labels = two_classes(rows, width, 1.5, seed=rows)
    columns = columns_of(labels, "classification")
    wanted = np.mean([direct_evidence(features, column) for column in columns.T])
    assert logme(features, columns) == pytest.approx(wanted, abs=1e-5)


def test_logme_of_values_and_of_features_of_low_rank() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(25, 3)) @ rng.normal(size=(3, 8))  # rank 3 of 8
    values = features @ rng.normal(size=8) + 0.3 * rng.normal(size=25)
    found = logme(features, columns_of(values, "regression"))
    assert found == pytest.approx(direct_evidence(features, values), abs=1e-5)
    turned = features @ np.linalg.qr(rng.normal(size=(8, 8)))[0]  # a rotation changes nothing
    assert logme(turned, values[:, None]) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("rank", [12, 5])
def test_logme_does_not_depend_on_the_way_it_is_computed(rank: int) -> None:
    """From products (rows > width) as from the decomposition (width > rows, zeros added)."""
    rng = np.random.default_rng(rank)
    features = (rng.normal(size=(60, rank)) @ rng.normal(size=(rank, 12)) + 40).astype(np.float32)
    features *= np.float32(10.0) ** -rng.integers(0, 4, 12)  # dimensions of very different size
    columns = columns_of(rng.integers(0, 3, 60), "classification")
    wide = np.concatenate([features, np.zeros((60, 60))], axis=1)
    assert logme(features, columns) == pytest.approx(logme(wide, columns), abs=2e-4)
    embedding_map = rng.normal(size=(13, 12))
    mapped = logme(apply_map(embedding_map, features.astype(np.float64)), columns)
    assert logme_of_map(embedding_map, features, columns) == pytest.approx(mapped, abs=1e-6)
    few = logme_of_map(embedding_map, features[:9], columns[:9])
    wanted = logme(apply_map(embedding_map, features[:9].astype(np.float64)), columns[:9])
    assert few == pytest.approx(wanted, abs=1e-9)


def test_logme_where_the_maximum_lies_at_an_end() -> None:
    rng = np.random.default_rng(8)
    features, y = rng.normal(size=(9, 12)), rng.normal(size=9)
    y = features @ features.T @ y  # fewer rows than dimensions, and labels without noise
    found = logme(features, y[:, None])
    # beta → ∞: y ~ N(0, F Fᵀ/alpha), greatest at alpha = n / (yᵀ (F Fᵀ)⁻¹ y)
    cov = features @ features.T
    alpha = 9 / float(y @ np.linalg.solve(cov, y))
    limit = multivariate_normal(np.zeros(9), cov / alpha).logpdf(y) / 9
    assert found == pytest.approx(float(limit), abs=1e-6)
    # alpha → ∞: features that are nothing, or have nothing to do with y: y ~ N(0, I/beta)
    plain = -(math.log(2 * math.pi * 0.5) + 1) / 2  # mean square of 0, 1, 0, 1 is 1/2
    four = np.array([0.0, 1.0, 0.0, 1.0])
    assert logme(np.zeros((4, 2)), four[:, None]) == pytest.approx(plain)
    across = np.array([[1.0], [0.0], [-1.0], [0.0]])
    assert logme(across, four[:, None]) == pytest.approx(plain)
    # a label of a multilabel target that no row has changes nothing
    both = np.stack([four, np.zeros(4)], axis=1)
    assert logme(across, both) == pytest.approx(plain)
    with pytest.raises(Unscorable, match="no row has any label"):
        logme(across, np.zeros((4, 2)))
    # labels that a feature is: the more certain the better, and a number
    known = rng.normal(size=(30, 3))
    assert 5 < logme(known, known[:, :1]) < math.inf


def test_columns_of_labels() -> None:
    np.testing.assert_array_equal(
        columns_of(np.array([2, 0, 2]), "classification"), [[0, 1], [1, 0], [0, 1]]
    )
    assert columns_of(np.zeros((4, 3)), "multilabel").shape == (4, 3)


def test_logme_by_hand() -> None:
    # one row, one feature, both 1: N(1; 0, 1/α + 1/β) is greatest at variance 1, and then
    # log N = −(log 2π + 1) / 2, however the variance is shared out
    found = logme(np.ones((1, 1)), np.ones((1, 1)))
    assert found == pytest.approx(-(math.log(2 * math.pi) + 1) / 2, abs=1e-4)
