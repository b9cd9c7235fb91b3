"""TaskEmb: do the two tasks pull at the same places of the base?

A task is the diagonal of the empirical Fisher information of the first token's vector, layer by
layer: the mean over rows of ``(∂ loss / ∂ h_l)²`` (D,), with a linear head on the plain base. The
score is the cosine of the two tasks, averaged over the layers (Achille et al. 2019, Task2Vec,
arXiv:1902.03545; Vu et al. 2020, arXiv:2005.00770, section 4: TaskEmb, there also with respect to
layer outputs).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtl.graph.scores.score import Array, Candidate, Score, Unscorable
from mtl.graph.scores.textemb import cosine


def fisher_similarity(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, float]:
    """Cosine of the diagonals, layer by layer.

    Raises:
        Unscorable: other layers or widths, or a task without any gradient.
    """
    if ours.keys() != theirs.keys():
        raise Unscorable("the two tasks were looked at in different layers")
    return {layer: cosine(values, theirs[layer]) for layer, values in ours.items()}


def _score(candidate: Candidate) -> float:
    assert candidate.target.fisher is not None
    assert candidate.source.fisher is not None
    found = fisher_similarity(candidate.target.fisher, candidate.source.fisher)
    return float(np.mean(list(found.values())))


SCORE = Score(
    name="taskemb",
    summary="cosine of the tasks' Fisher diagonals, averaged over the layers",
    citation="Achille et al. 2019, arXiv:1902.03545; Vu et al. 2020, arXiv:2005.00770",
    needs=("target.fisher", "source.fisher"),
    function=_score,
)
