"""TaskEmb's head: linear, fitted to fixed features without training."""

from __future__ import annotations

import numpy as np
import torch

from mtl.graph.scores import Unscorable


def fit_head(
    features: np.ndarray, labels: np.ndarray, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear head (D,C) and its bias (C,) on fixed features, for TaskEmb.

    Raises:
        Unscorable: one class only, or a kind without a head.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    scale = features.std(0) + 1e-6
    centre = features.mean(0)
    ready = (features - centre) / scale
    if kind == "classification":
        if len(np.unique(labels)) < 2:
            raise Unscorable("all rows have one class")
        model = LogisticRegression(C=0.1, max_iter=500).fit(ready, labels)
        columns = np.zeros((int(labels.max()) + 1, features.shape[1]))
        offset = np.full(len(columns), -30.0)  # a class without rows gets no probability
        if len(model.classes_) == 2:  # one row of coefficients: those of the second class
            columns[model.classes_[1]] = model.coef_[0]
            offset[model.classes_] = [0.0, model.intercept_[0]]
        else:
            columns[model.classes_] = model.coef_
            offset[model.classes_] = model.intercept_
    elif kind == "regression":
        model = Ridge(alpha=float(features.shape[1])).fit(ready, labels)
        columns, offset = model.coef_[None], np.array([model.intercept_])
    else:
        raise Unscorable(f"TaskEmb has no head for {kind} tasks")
    weight = columns / scale
    return (
        torch.tensor(weight.T, dtype=torch.float32),
        torch.tensor(offset - weight @ centre, dtype=torch.float32),
    )


def row_losses(kind: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n,) the loss of every row: cross-entropy, or the squared error of a regression."""
    if kind == "classification":
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return (logits[:, 0] - labels.to(logits.dtype)).square()
