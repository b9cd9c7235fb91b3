"""Text similarity: do the two tasks use the same words?

The cosine of the mean TF-IDF vectors of both tasks' rows, the vocabulary and the document
frequencies being those of both together (Salton and Buckley 1988, Information Processing and
Management 24(5); as a baseline of task selection in Poth et al. 2021, arXiv:2104.08247).
"""

from __future__ import annotations

import numpy as np

from mtl.graph.scores.score import Candidate, Score, Unscorable

TOKENS = r"(?u)\w+|[^\w\s]"
"""Every token counts: what scikit-learn's word pattern drops (one letter, "?") is text, too."""


def tfidf_similarity(ours: list[str], theirs: list[str]) -> float:
    """Cosine of the mean TF-IDF vectors, from 0 to 1.

    Raises:
        Unscorable: no words in either.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(token_pattern=TOKENS, sublinear_tf=True)
    try:
        matrix = vectoriser.fit_transform([*ours, *theirs])
    except ValueError as error:
        raise Unscorable(f"the texts hold no words ({error})") from error
    one = np.asarray(matrix[: len(ours)].mean(axis=0)).ravel()
    two = np.asarray(matrix[len(ours) :].mean(axis=0)).ravel()
    norm = np.linalg.norm(one) * np.linalg.norm(two)
    if norm == 0:
        raise Unscorable("one of the tasks has no words")
    return float(one @ two / norm)


def _score(candidate: Candidate) -> float:
    assert candidate.target.texts is not None
    assert candidate.source.texts is not None
    return tfidf_similarity(candidate.target.texts, candidate.source.texts)


SCORE = Score(
    name="tfidf",
    summary="cosine of mean TF-IDF vectors of both tasks' texts",
    citation="Poth et al. 2021, arXiv:2104.08247",
    needs=("target.texts", "source.texts"),
    function=_score,
    claims=False,  # two tasks over one corpus look alike, whatever they ask
)
