"""TextEmb: are the two tasks' texts in the same region of the base's embedding space?

A task is the mean over its rows of the mean token vector in the base's last layer; the score is the
cosine of the two tasks (Vu et al. 2020, arXiv:2005.00770, section 4, "TextEmb").
"""

from __future__ import annotations

import numpy as np

from mtl.graph.scores.score import Array, Candidate, Score, Unscorable


def cosine(one: Array, two: Array) -> float:
    """The cosine of two vectors (of any equal shape).

    Raises:
        Unscorable: shapes differ, or one is zero.
    """
    if one.shape != two.shape:
        raise Unscorable(f"shapes differ: {one.shape} and {two.shape}")
    norm = float(np.linalg.norm(one) * np.linalg.norm(two))
    if norm == 0:
        raise Unscorable("a vector is zero")
    return float((one * two).sum() / norm)


def _score(candidate: Candidate) -> float:
    assert candidate.target.mean is not None
    assert candidate.source.mean is not None
    return cosine(candidate.target.mean.mean(0), candidate.source.mean.mean(0))


SCORE = Score(
    name="textemb",
    summary="cosine of the tasks' mean embeddings in the plain base",
    citation="Vu et al. 2020, arXiv:2005.00770 (TextEmb)",
    needs=("target.mean", "source.mean"),
    function=_score,
)
