"""Kinds of task: how labels are read, which loss trains them, how logits become predictions.

Shapes: B rows of a batch, n rows of a split, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.registry import Registry
from mtl.tasks.labels import read_class_labels, read_label_sets, read_numbers

if TYPE_CHECKING:
    import torch

    from mtl.tasks.labels import LabelColumn
    from mtl.tasks.spec import TaskSpec


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
        loss: logits (B,C) and labels of B rows → scalar, the mean over rows.
        decode: spec, logits (n,C) and the split's table → one prediction per example.
    """

    name: str
    label_dtype: str
    classes: bool
    unfit: Callable[[TaskSpec], str | None]
    num_outputs: Callable[[TaskSpec], int]
    check_labels: Callable[[TaskSpec, LabelColumn], np.ndarray]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    decode: Callable[[TaskSpec, np.ndarray, Mapping[str, Any]], np.ndarray]


KINDS: Registry[Kind] = Registry("kind of task", Kind)


def task_loss(spec: TaskSpec, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of a task: mean over the B rows of a batch, computed in fp32.

    Classification: cross-entropy. Regression (C = 1): (logit − label)². Multi-label: binary
    cross-entropy of sigmoid(logit), mean over rows and labels.

    Args:
        spec: the task.
        logits: (B,C).
        labels: (B,) class numbers or values, or (B,C) zeros and ones.
    """
    return KINDS.get(spec.kind).loss(logits.float(), labels)


def decode(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    """One prediction per example from the logits (n,C) of a split, in row order.

    Classification: the class with the largest logit, the first of equals. Regression: the value.
    Multi-label: (n,C) ones where sigmoid(logit) > 0.5.

    Args:
        spec: the task.
        logits: (n,C), one row per row of the split.
        table: ``Encoded.table`` of the split.
    """
    return KINDS.get(spec.kind).decode(spec, logits, table)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.cross_entropy(logits, labels)


def _squared_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))


def _binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _largest(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return logits.argmax(axis=1).astype(np.int64)


def _value(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return logits[:, 0].astype(np.float32)


def _above_half(spec: TaskSpec, logits: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    return (logits > 0).astype(np.int64)


def _two_labels_or_more(spec: TaskSpec) -> str | None:
    return None if len(spec.labels) >= 2 else "must name at least two classes"


def _one_label_or_more(spec: TaskSpec) -> str | None:
    return None if spec.labels else "must name the labels"


def _no_labels(spec: TaskSpec) -> str | None:
    return "must be absent: a regression has no classes" if spec.labels else None


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
        unfit=_one_label_or_more,
        num_outputs=lambda spec: len(spec.labels),
        check_labels=lambda spec, column: read_label_sets(column, spec.labels),
        loss=_binary_cross_entropy,
        decode=_above_half,
    ),
)
