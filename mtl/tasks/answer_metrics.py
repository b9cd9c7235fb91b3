"""Comparing answers in words, as SQuAD v1.1 and ReCoRD do: normalisation, token F1, exact match."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Lower-cased, without ASCII punctuation, then without a, an and the, single spaces between."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(prediction: str, answer: str) -> float:
    """2·common / (words of one + words of the other), as multisets; 0 where none is common.

    Both are words separated by spaces, as :func:`normalise` gives them.
    """
    found, gold = prediction.split(), answer.split()
    common = sum((Counter(found) & Counter(gold)).values())
    return 2 * common / (len(found) + len(gold)) if common else 0.0


def exact_match(prediction: str, answer: str) -> float:
    """1 where both are the same, else 0; both normalised."""
    return float(prediction == answer)


MEASURES: dict[str, Callable[[str, str], float]] = {"f1": token_f1, "em": exact_match}


def best(measure: Callable[[str, str], float], prediction: str, answers: Iterable[str]) -> float:
    """The largest value over all answers; prediction and answers are normalised already."""
    return max(measure(prediction, answer) for answer in answers)
