"""ESM-LogME: the source's features of the target, predicted instead of computed.

An embedding-space map is the linear map that best turns the base's vectors into the tuned model's,
learned once per source on the source's own rows. The target then needs one pass of the plain base
for a whole zoo: each source's features are predicted by its map and judged by LogME (Schulte et al.
2024, "Less is More", arXiv:2410.15148; they train the map by gradient descent, here it is the
closed form of the same ridge problem).
"""

from __future__ import annotations

import numpy as np

from mtl.graph.scores.logme import columns_of, logme, logme_of_products
from mtl.graph.scores.score import Array, Candidate, Score, Unscorable

RIDGE = 1e-4
"""Penalty on the map, in units of the base vectors' mean variance times the number of rows."""


def fit_map(base: Array, tuned: Array) -> Array:
    """The map (D+1,D): ``tuned ≈ base · map[:D] + map[D]``, least squares with a slight ridge.

    Args:
        base, tuned: (n,D), the same rows in the plain base and with the adapter.

    Raises:
        Unscorable: shapes differ, no rows, or values that are not finite.
    """
    if base.shape != tuned.shape or len(base) < 2:
        raise Unscorable(f"a map needs the same rows twice, not {base.shape} and {tuned.shape}")
    if not (np.isfinite(base).all() and np.isfinite(tuned).all()):
        raise Unscorable("the source's vectors are not finite")
    base, tuned = base.astype(np.float64), tuned.astype(np.float64)
    middle, goal = base.mean(0), tuned.mean(0)
    centred = base - middle
    gram = centred.T @ centred
    penalty = RIDGE * max(float(np.trace(gram)) / len(gram), np.finfo(np.float64).tiny)
    # the tuned vector is the base's plus a change: shrink the change, not the vector
    change = np.linalg.solve(
        gram + penalty * np.eye(len(gram)), centred.T @ (tuned - goal - centred)
    )
    weight = np.eye(len(gram)) + change
    return np.concatenate([weight, (goal - middle @ weight)[None]])


def apply_map(embedding_map: Array, base: Array) -> Array:
    """The features (n,D) that the map predicts for base vectors (n,D)."""
    return base @ embedding_map[:-1] + embedding_map[-1]


def logme_of_map(embedding_map: Array, base: Array, columns: Array) -> float:
    """LogME of the features that the map predicts, for base vectors (n,D) and labels (n,C).

    With more rows than dimensions from products of the base's vectors alone: for B = [X 1] and the
    map W, ``FᵀF = Wᵀ (BᵀB) W``; no features are formed.
    """
    if len(base) <= len(embedding_map):
        return logme(apply_map(embedding_map, base), columns)
    ones = np.ones((len(base), 1))
    padded = np.concatenate([np.asarray(base, dtype=np.float64), ones], axis=1)
    gram = embedding_map.T @ (padded.T @ padded) @ embedding_map
    cross = embedding_map.T @ (padded.T @ columns)
    return logme_of_products((gram + gram.T) / 2, cross, columns)


def _score(candidate: Candidate) -> float:
    target = candidate.target
    assert candidate.esm is not None
    assert target.first is not None
    assert target.labels is not None
    if candidate.esm.shape != (target.first.shape[1] + 1, target.first.shape[1]):
        raise Unscorable("the map is of another width")
    return logme_of_map(candidate.esm, target.first, columns_of(target.labels, target.kind))


SCORE = Score(
    name="esm",
    summary="LogME of the source's features as predicted by its embedding-space map",
    citation="Schulte et al. 2024, arXiv:2410.15148",
    needs=("target.labels", "target.first", "esm"),
    function=_score,
    features=True,
)
