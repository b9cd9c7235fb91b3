"""Models without a network: a constant, and linear ones over words or vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.graph.scores.probe import linear_model
from mtl.graph.scores.tfidf import TOKENS
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.tasks import TaskSpec

AWAY = -1e4
"""The logit of a class that no training row has."""
WORDS_STRENGTH = 10.0
"""Inverse penalty over TF-IDF, whose vectors have length 1: the library's 1.0 hardly learns."""
MOST_WORDS = 200_000


class NoAnswer(Exception):  # noqa: N818 - an answer, not a defect
    """There is no such baseline for this task; the message says why."""


def constant_answer(
    spec: TaskSpec, labels: np.ndarray, quality: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, str]:
    """The one answer that is given to every row, and what it is in words.

    Args:
        labels: of the training rows.
        quality: what an answer scores on them; picks between two for label sets.

    Raises:
        NoAnswer: candidates and spans.
    """
    if spec.kind == "candidates":
        raise NoAnswer("candidates of a query compete: no answer is the most frequent one")
    if spec.kind == "span_extraction":
        raise NoAnswer("answers are places in a text: none is the most frequent one")
    if spec.kind == "regression":
        mean = np.float32(labels.mean(dtype=np.float64))
        return np.asarray(mean, dtype=np.float32), f"the mean, {mean:.4g}"
    if spec.kind == "multilabel":
        sets, counts = np.unique(labels.astype(np.int64), axis=0, return_counts=True)
        each = (labels.mean(axis=0) > 0.5).astype(np.int64)
        best = max((sets[counts.argmax()], each), key=quality)
        names = ", ".join(spec.labels[place] for place in np.flatnonzero(best))
        return best, f"always {{{names}}}"
    best = np.asarray(np.bincount(labels.astype(np.int64)).argmax(), dtype=np.int64)
    return best, f"always {spec.labels[int(best)]}"


def text_features(
    texts: Sequence[Sequence[str]], rows: np.ndarray, choices: int
) -> Callable[[Sequence[Sequence[str]], np.ndarray | None], Any]:
    """Texts of a split and rows → sparse (n·choices, F), by the words of the training rows.

    Each text of a pair has a vocabulary of its own; a context stands beside each of its choices.

    Args:
        texts: one list per part, of the training split.
        rows: those that are learned from.

    Raises:
        NoAnswer: no words at all.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    def parts_of(given: Sequence[Sequence[str]], wanted: np.ndarray | None) -> list[list[str]]:
        chosen = range(len(given[0])) if wanted is None else wanted
        parts = [[part[row] for row in chosen] for part in given]
        if choices == 1:
            return parts
        context, *each = parts
        return [
            [text for text in context for _ in each],
            [one for several in zip(*each, strict=True) for one in several],
        ]

    learned = []
    for part in parts_of(texts, rows):
        words = TfidfVectorizer(
            token_pattern=TOKENS, sublinear_tf=True, ngram_range=(1, 2), max_features=MOST_WORDS
        )
        try:
            learned.append(words.fit(part))
        except ValueError:  # a part without any word says nothing
            learned.append(None)
    if not any(learned):
        raise NoAnswer("the texts hold no words")

    def features(given: Sequence[Sequence[str]], wanted: np.ndarray | None) -> Any:
        return hstack(
            [
                words.transform(part)
                for words, part in zip(learned, parts_of(given, wanted), strict=True)
                if words is not None
            ],
            format="csr",
        )

    return features


def linear_answers(
    spec: TaskSpec, features: Any, labels: np.ndarray, *, words: bool
) -> Callable[[Any], np.ndarray]:
    """Features (n·choices, F) → logits as the task's network gives them, (n,C).

    Args:
        labels: of the n rows.
        words: whether features are sparse TF-IDF vectors, or dense ones to be standardised.

    Raises:
        NoAnswer: all labels are equal, or answers are spans.
    """
    if spec.kind == "span_extraction":
        raise NoAnswer("an answer is a place in a text, and a text has one vector")
    if spec.kind == "multilabel":
        each = [_binary(features, column, words) for column in labels.astype(np.int64).T]
        return lambda x: np.stack([one(x) for one in each], axis=1)
    if spec.kind == "multiple_choice":
        right = (labels[:, None] == np.arange(spec.choices)).reshape(-1)
        chosen = _binary(features, right.astype(np.int64), words)
        return lambda x: chosen(x).reshape(-1, spec.choices)
    if (labels == labels[0]).all():
        rows = counted(len(labels), "training row")
        raise NoAnswer(f"the {rows} have one label")
    if spec.kind == "candidates":
        better = _binary(features, labels.astype(np.int64), words)
        return lambda x: np.stack([np.zeros(x.shape[0]), better(x)], axis=1)
    if spec.kind == "regression":
        model = _fitted(features, labels.astype(np.float64), spec.kind, words)
        return lambda x: model.predict(x)[:, None]
    model = _fitted(features, labels, spec.kind, words)
    classes = model.classes_.astype(np.int64)

    def logits(x: Any) -> np.ndarray:
        found = model.decision_function(x)
        if len(classes) == 2:
            found = np.stack([-found, found], axis=1)
        whole = np.full((x.shape[0], spec.num_outputs), AWAY)
        whole[:, classes] = found
        return whole

    return logits


def _binary(features: Any, labels: np.ndarray, words: bool) -> Callable[[Any], np.ndarray]:
    """Features → how much speaks for 1; a constant where all labels are equal."""
    if (labels == labels[0]).all():
        sign = 1.0 if labels[0] else -1.0
        return lambda x: np.full(x.shape[0], sign)
    model = _fitted(features, labels, "classification", words)
    return lambda x: np.asarray(model.decision_function(x))


def _fitted(features: Any, labels: np.ndarray, kind: str, words: bool) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    if not words:
        model = linear_model(kind, features.shape[1])
    elif kind == "regression":
        model = Ridge(alpha=1.0)
    else:
        model = LogisticRegression(C=WORDS_STRENGTH, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digit does not matter
        return model.fit(features, labels)
