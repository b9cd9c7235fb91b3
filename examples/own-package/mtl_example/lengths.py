"""A score for the graph: are the texts of two tasks of like length?"""

from __future__ import annotations

import math

from mtl.graph.scores import Candidate, Score


def _words(texts: list[str] | None) -> float:
    assert texts is not None  # `needs` says so
    return sum(len(text.split()) for text in texts) / len(texts)


def _score(candidate: Candidate) -> float:
    """Minus the distance of the logarithms of the mean numbers of words; 0 is best."""
    ratio = (1 + _words(candidate.source.texts)) / (1 + _words(candidate.target.texts))
    return -abs(math.log(ratio))


SCORE = Score(
    name="lengths",
    summary="texts of like length",
    citation="none; an example",
    needs=("target.texts", "source.texts"),
    function=_score,
    claims=False,
)
