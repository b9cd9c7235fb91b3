"""Few-shot draws: which k rows of the training part are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl.data import sampling
from mtl.errors import RequestError

if TYPE_CHECKING:
    from mtl.data.task_data import Split
    from mtl.tasks.spec import TaskSpec


def draw_shots(
    rows: np.ndarray, shots: int, draw: int, task: str, classes: np.ndarray | None = None
) -> np.ndarray:
    """The ``shots`` rows of a draw, out of the row numbers of the training part, in its order.

    With ``classes``, the stratum of every row, they are drawn by these (:mod:`mtl.data.sampling`).
    Without, draw 0 is the first rows of the part: the single draw of the ScaLearn paper, which all
    its seeds share (docs/methods.md#few-shot-runs). Draw d > 0 is the head of a permutation of the
    part, by seed d; fewer shots of a draw are the head of more, and classes are not balanced.

    Raises:
        RequestError: fewer rows than shots.
    """
    if shots > len(rows):
        raise RequestError(
            f"Task {task!r}: --shots {shots}, but its training part has only {len(rows)} rows. Ask "
            "for fewer shots, or leave --shots out to train on all of them."
        )
    if classes is not None:
        return rows[sampling.draw(classes, shots, draw)]
    if not draw:
        return rows[:shots]
    # RandomState, because NumPy promises that its streams never change; Generator's may.
    order = np.random.RandomState(draw).permutation(len(rows))
    return rows[order[:shots]]


def draw_per_class(
    rows: np.ndarray, labels: np.ndarray, count: int, draw: int, spec: TaskSpec, *, first: bool
) -> tuple[np.ndarray, list[str]]:
    """``count`` rows of every class, and a remark on classes that have fewer.

    Args:
        labels: of ``rows``.
        first: draw 0 takes the first rows of each class.

    Raises:
        RequestError: the task has no classes.
    """
    if spec.kind != "classification":
        raise RequestError(
            f"Task {spec.id!r}: --shots-per-class {count} is for classification, not for "
            f"{spec.kind}. Give --shots, which takes so many rows over all."
        )
    kept = rows[sampling.per_class(labels, count, None if first and not draw else draw)]
    sizes = np.bincount(labels, minlength=len(spec.labels))
    few = [f"{name!r} ({n})" for name, n in zip(spec.labels, sizes, strict=True) if n < count]
    return kept, [f"train: fewer than {count} rows of {', '.join(few)}"] if few else []


def one_class_note(spec: TaskSpec, train: Split) -> list[str]:
    """A remark where all shots are of one class, so that nothing can be learnt from them."""
    if spec.kind != "classification" or len(np.unique(train.labels)) > 1:
        return []
    return [f"train: all {len(train)} shots have the label {spec.labels[int(train.labels[0])]!r}"]
