"""What a model answers, in the words of the task: labels, numbers, sets, choices, spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.tasks import KINDS, decode
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.data import Encoded
    from mtl.tasks import TaskSpec


@dataclass(frozen=True)
class Answers:
    """Answers to n rows; a sequence of :attr:`labels`.

    Attributes:
        labels: one per row. Classification: the name of the class. Regression: the number.
            Multi-label: the list of names. Multiple choice: the name of the choice. Candidates:
            the name of "right" for one row of each group, of "wrong" for the others. Span
            extraction: the text of the answer.
        names: what the columns of :attr:`scores` are.
        scores: (n,C) fp32. Classification and choices: softmax. Multi-label: sigmoid. Candidates:
            softmax of the row. Regression: the value. Spans: the sum of the two logits.
        raw: (n,·) fp32, what an entry stores of its answers: logits, or scores of spans.
        prediction: the same labels as numbers, as an entry stores them.
    """

    labels: Sequence[Any]
    names: Sequence[str]
    scores: np.ndarray
    raw: np.ndarray
    prediction: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> Any:
        return self.labels[row]

    def rows(self) -> list[dict[str, Any]]:
        """One dict per row: ``prediction``, and a score by each of :attr:`names`."""
        scored = [
            dict(zip(self.names, map(float, row), strict=True)) for row in self.scores.tolist()
        ]
        return [
            {"prediction": label, "scores": scores}
            for label, scores in zip(self.labels, scored, strict=True)
        ]


def in_words(
    spec: TaskSpec,
    prediction: np.ndarray,
    raw: np.ndarray,
    table: Mapping[str, Any],
) -> Answers:
    """Decoded predictions and what is stored of the logits, in the task's words.

    Args:
        prediction: one per example, as :func:`mtl.tasks.decode` gives them.
        raw: (n,·), as the kind's ``scores`` gives them.
        table: ``Encoded.table`` of the rows.
    """
    if spec.kind == "regression":
        return Answers([float(value) for value in prediction], ("value",), raw, raw, prediction)
    if spec.kind == "span_extraction":
        texts = [
            context[begin:end]
            for context, (begin, end) in zip(table["context"], prediction.tolist(), strict=True)
        ]
        return Answers(texts, ("score",), raw, raw, prediction)
    if spec.kind == "multilabel":
        sets = [
            [name for name, on in zip(spec.labels, row, strict=True) if on] for row in prediction
        ]
        scores = (1 / (1 + np.exp(-raw.astype(np.float64)))).astype(np.float32)
        return Answers(sets, spec.labels, scores, raw, prediction)
    shifted = np.exp(raw.astype(np.float64) - raw.max(axis=1, keepdims=True))
    scores = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    named = [spec.labels[int(place)] for place in prediction]
    return Answers(named, spec.labels, scores, raw, prediction)


def of_logits(spec: TaskSpec, logits: np.ndarray, encoded: Encoded) -> Answers:
    """Logits of rows (:func:`mtl.engine.evaluation.answer`) decoded, in the task's words."""
    prediction = decode(spec, logits, encoded.table)
    raw = KINDS.get(spec.kind).scores(logits, encoded.table)
    return in_words(spec, prediction, raw, encoded.table)


def unseen_text(column: str, unseen: int, rows: int) -> str:
    """What to say of rows that the pooled gates answer."""
    return (
        f"{unseen:,} of {counted(rows, 'row')} have no value in {column!r} that training knew: "
        "answered by the pooled gates"
    )
