"""Weights of classes in the training loss, so that rare ones count as much as frequent ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl.errors import RequestError

if TYPE_CHECKING:
    import numpy as np

    from mtl.tasks.spec import TaskSpec

NONE, BALANCED = "none", "balanced"
"""Values of the run setting ``class_weights``."""
_WHY_NOT = {
    "regression": "its labels are numbers, not classes",
    "multiple_choice": "its labels are places in a list of choices",
    "candidates": "the candidates of a query compete with each other, each query counts once",
    "span_extraction": "its labels are places in a text",
}


def check_class_weights(spec: TaskSpec) -> None:
    """Refuse to balance what has no classes.

    Raises:
        RequestError: a task of another kind than classification and multi-label; says why.
    """
    why = _WHY_NOT.get(spec.kind)
    if why:
        raise RequestError(
            f"class_weights={BALANCED} cannot be used for {spec.id}, a {spec.kind} task: {why}. "
            f"Leave --class-weights out, or give --class-weights {NONE}."
        )


def class_weights(spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
    """(C,) float32: what the rows of each class count in the loss.

    Classification: n / (classes that occur · rows of the class), so that the mean over the n rows
    is 1 and the size of the loss stays what it is. Multi-label: the factor of the rows that have
    the label, (rows without it) / (rows with it). 1 for a class or label that no row has, or all.

    Args:
        labels: (n,) classes or (n,C) zeros and ones, of the rows that train.
    """
    import numpy as np

    if spec.kind == "multilabel":
        having = labels.sum(axis=0).astype(np.float64)
        without = len(labels) - having
        usable = (having > 0) & (without > 0)
        return np.where(usable, without / np.where(usable, having, 1), 1.0).astype(np.float32)
    counts = np.bincount(labels.astype(np.int64), minlength=spec.num_outputs).astype(np.float64)
    there = counts > 0
    share = len(labels) / (there.sum() * np.where(there, counts, 1))
    return np.where(there, share, 1.0).astype(np.float32)
