"""Kinds of task: how labels are read, which loss trains them, how logits become predictions.

Shapes: B rows of a batch, n rows of a split, C outputs of the head, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.registry import Registry
from mtl.tasks.label_sets import read_label_sets
from mtl.tasks.labels import read_class_labels, read_numbers
from mtl.tasks.spans import best_spans, read_spans

if TYPE_CHECKING:
    import torch

    from mtl.tasks.label_columns import LabelColumn
    from mtl.tasks.spec import TaskSpec


def _one_or_two(spec: TaskSpec) -> str | None:
    if len(spec.inputs) in (1, 2):
        return None
    return f"must be one or two templates, not {len(spec.inputs)}"


def _as_they_are(labels: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return labels


@dataclass(frozen=True)
class Kind:
    """What a kind of task does with labels and logits.

    Attributes:
        name: as in a task's YAML.
        label_dtype: dtype of encoded labels.
        classes: whether one label is one class, so that splits can be stratified by it.
        unfit: what is wrong with the labels of a spec of this kind, or None.
        num_outputs: C for a spec.
        check_labels: the label column of a split as an array of ``label_dtype``; refuses labels
            that the spec does not know, and says in which row.
        loss: logits of B rows, their labels, weights of the classes or None → scalar, the mean over
            rows.
        decode: spec, logits (n,C) and the split's table → one prediction per example.
        choices: spec → encodings per row. With several, C of the head is 1, and the logits of a
            row's encodings stand side by side.
        unfit_inputs: what is wrong with the templates of a spec of this kind, or None.
        needs: columns of the prepared table that decoding needs.
        targets: labels (n,…) of encoded rows and the split's table → one label per example, of the
            shape of the predictions; the same except where a row is not an example.
        scores: logits (n,C) and table → what is stored of them beside the predictions, (n,·).
        windows: whether a row is a window of an example's second text, and the head gives the
            logits of every token, (B,T,C).
    """

    name: str
    label_dtype: str
    classes: bool
    unfit: Callable[[TaskSpec], str | None]
    num_outputs: Callable[[TaskSpec], int]
    check_labels: Callable[[TaskSpec, LabelColumn], np.ndarray]
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
    decode: Callable[[TaskSpec, np.ndarray, Mapping[str, Any]], np.ndarray]
    choices: Callable[[TaskSpec], int] = lambda spec: 1
    unfit_inputs: Callable[[TaskSpec], str | None] = _one_or_two
    needs: tuple[str, ...] = ()
    targets: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray] = _as_they_are
    scores: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray] = _as_they_are
    windows: bool = False


KINDS: Registry[Kind] = Registry("kind of task", Kind)


def task_loss(
    spec: TaskSpec,
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of a task: mean over the B rows of a batch, computed in fp32.

    Classification and candidates: cross-entropy. Multiple choice: cross-entropy over the choices of
    a row. Regression (C = 1): (logit − label)². Multi-label: binary cross-entropy of
    sigmoid(logit), mean over rows and labels. Span extraction: the mean of two cross-entropies
    over the T positions, that of the first and that of the last token.

    Args:
        spec: the task.
        logits: (B,C); of a multiple choice also (B·choices, 1); of a span extraction (B,T,2) or
            (B,2·T).
        labels: (B,) class numbers or values, (B,C) zeros and ones, or (B,2) tokens.
        weights: (C,) of the classes (:mod:`mtl.tasks.class_weights`): what a row of the class
            counts, of a multi-label task a row that has the label.
    """
    return KINDS.get(spec.kind).loss(logits.float().reshape(len(labels), -1), labels, weights)


def decode(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    """One prediction per example from the logits (n,C) of a split, in row order.

    Classification and multiple choice: the class with the largest logit, the first of equals.
    Regression: the value. Multi-label: (n,C) ones where sigmoid(logit) > 0.5. Candidates: 1 for the
    row of each group whose class-1 logit is the largest, of equals the one of largest ``order``.
    Span extraction: the best span of each example, begin and end in characters, see
    :func:`mtl.tasks.spans.best_spans`.

    Args:
        spec: the task.
        logits: (n,C), one row per row of the split.
        table: ``Encoded.table`` of the split.
    """
    return KINDS.get(spec.kind).decode(spec, logits, table)


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    if weights is None:
        return functional.cross_entropy(logits, labels)
    # Over the rows, not over their weights: so the parts of a batch add up to the batch.
    each = functional.cross_entropy(logits, labels, reduction="none")
    return (each * weights[labels]).mean()


def _squared_error(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    return functional.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))


def _binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    wanted = labels.to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights)


def _two_cross_entropies(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    pairs = logits.reshape(len(labels), -1, 2)
    return functional.cross_entropy(pairs, labels)  # (B,T,2) against (B,2): mean over both ends


def _largest(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return logits.argmax(axis=1).astype(np.int64)


def _value(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return logits[:, 0].astype(np.float32)


def _above_half(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return (logits > 0).astype(np.int64)


def _one_per_group(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    group = table["group"]
    ranked = np.lexsort((table["order"], logits[:, 1], group))
    last = np.flatnonzero(np.append(np.diff(group[ranked]) != 0, True))
    chosen = np.zeros(len(group), dtype=np.int64)
    chosen[ranked[last]] = 1
    return chosen


def _span(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return best_spans(logits, table)[0]


def _two_labels(spec: TaskSpec) -> str | None:
    return None if len(spec.labels) == 2 else "must be the two names of wrong and right candidates"


def _two_labels_or_more(spec: TaskSpec) -> str | None:
    return None if len(spec.labels) >= 2 else "must name at least two classes"


def _any_labels(spec: TaskSpec) -> str | None:
    return None  # without a list, the labels are those of the data


def _no_labels(spec: TaskSpec) -> str | None:
    return f"must be absent: a {spec.kind} has no classes" if spec.labels else None


def _context_and_choices(spec: TaskSpec) -> str | None:
    if len(spec.inputs) == len(spec.labels) + 1:
        return None
    return (
        f"must be the context and a template for each of the {len(spec.labels)} labels, it holds "
        f"{len(spec.inputs)}"
    )


def _question_and_context(spec: TaskSpec) -> str | None:
    # Spans count characters of the second text, so nothing may stand before its column.
    if len(spec.inputs) == 2 and re.fullmatch(r"\{[^{}]+\}", spec.inputs[1]):
        return None
    return "must be the question's template and the context's column alone, as '{context}'"


KINDS.add(
    "classification",
    Kind(
        name="classification",
        label_dtype="int64",
        classes=True,
        unfit=_two_labels_or_more,
        num_outputs=lambda spec: len(spec.labels),
        check_labels=lambda spec, column: read_class_labels(column, spec.labels),
        loss=_cross_entropy,
        decode=_largest,
    ),
)
KINDS.add(
    "regression",
    Kind(
        name="regression",
        label_dtype="float32",
        classes=False,
        unfit=_no_labels,
        num_outputs=lambda spec: 1,
        check_labels=lambda spec, column: read_numbers(column),
        loss=_squared_error,
        decode=_value,
    ),
)
KINDS.add(
    "multilabel",
    Kind(
        name="multilabel",
        label_dtype="float32",
        classes=False,
        unfit=_any_labels,
        num_outputs=lambda spec: len(spec.labels),
        check_labels=lambda spec, column: read_label_sets(column, spec.labels),
        loss=_binary_cross_entropy,
        decode=_above_half,
    ),
)
KINDS.add(
    "multiple_choice",
    Kind(
        name="multiple_choice",
        label_dtype="int64",
        classes=True,
        unfit=_two_labels_or_more,
        num_outputs=lambda spec: 1,
        check_labels=lambda spec, column: read_class_labels(column, spec.labels),
        loss=_cross_entropy,
        decode=_largest,
        choices=lambda spec: len(spec.labels),
        unfit_inputs=_context_and_choices,
    ),
)
KINDS.add(
    "candidates",
    Kind(
        name="candidates",
        label_dtype="int64",
        classes=False,
        unfit=_two_labels,
        num_outputs=lambda spec: 2,
        check_labels=lambda spec, column: read_class_labels(column, spec.labels),
        loss=_cross_entropy,
        decode=_one_per_group,
        needs=("group", "order"),
    ),
)
KINDS.add(
    "span_extraction",
    Kind(
        name="span_extraction",
        label_dtype="int64",
        classes=False,
        unfit=_no_labels,
        num_outputs=lambda spec: 2,
        check_labels=lambda spec, column: read_spans(column),
        loss=_two_cross_entropies,
        decode=_span,
        unfit_inputs=_question_and_context,
        targets=lambda labels, table: np.asarray(table["span"]),
        scores=lambda logits, table: best_spans(logits, table)[1][:, None],
        windows=True,
    ),
)
