"""Weight similarity: do the two tasks' adapters move the same directions to the same directions?

At each site an adapter ``U act(V z + c) + b`` has the linear part ``M = U V`` (D,D). The score is
the cosine of the two tasks' M, averaged over the sites. M is never formed::

    <U1 V1, U2 V2> = Σ (U1ᵀ U2) ⊙ (V1 V2ᵀ)

Unlike the cosine of the parameters it does not depend on how the bottleneck's units are ordered or
scaled (task similarity from tuned parameters: Vu et al. 2022, SPoT, arXiv:2110.07904).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtl.graph.scores.score import Array, Candidate, Score, Unscorable

Factors = tuple[Array, Array]


def inner(one: Factors, two: Factors) -> float:
    """``<U1 V1, U2 V2>``, the sum of products of all entries, for U (D,R) and V (R,D)."""
    return float(((one[0].T @ two[0]) * (one[1] @ two[1].T)).sum())


def map_similarity(ours: Mapping[str, Factors], theirs: Mapping[str, Factors]) -> dict[str, float]:
    """Cosine of the linear parts, site by site.

    Raises:
        Unscorable: other sites or widths, or an adapter that is zero at a site.
    """
    if ours.keys() != theirs.keys():
        raise Unscorable("the adapters sit at different places")
    found = {}
    for site, own in ours.items():
        other = theirs[site]
        if own[0].shape[0] != other[0].shape[0]:
            raise Unscorable(f"widths differ at site {site}")
        norm = np.sqrt(inner(own, own) * inner(other, other))
        if not norm > 0:
            raise Unscorable(f"an adapter is zero at site {site}")
        found[site] = inner(own, other) / norm
    return found


def _score(candidate: Candidate) -> float:
    assert candidate.target.maps is not None
    assert candidate.source.maps is not None
    found = map_similarity(candidate.target.maps, candidate.source.maps)
    return float(np.mean(list(found.values())))


SCORE = Score(
    name="weights",
    summary="cosine of the adapters' linear maps, averaged over the layers",
    citation="Vu et al. 2022, SPoT, arXiv:2110.07904 (similarity of tuned parameters)",
    needs=("target.maps", "source.maps"),
    function=_score,
    claims=False,  # adapters of separate runs lie almost at right angles, related or not
)
