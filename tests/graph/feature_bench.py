"""Features for the tests of scores."""

from __future__ import annotations

from typing import Any

import numpy as np


def two_classes(rows: int, width: int, apart: float, seed: int = 0) -> tuple[Any, Any]:
    """Two Gaussian classes whose means are ``apart`` standard deviations away from each other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    features = rng.normal(size=(rows, width))
    features[:, 0] += apart * labels
    return features, labels
