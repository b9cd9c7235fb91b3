"""Few-shot draws: which k rows of the training part are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import RequestError

if TYPE_CHECKING:
    from mtl.data.task_data import Split
    from mtl.tasks.spec import TaskSpec


def draw_shots(rows: np.ndarray, shots: int, draw: int, task: str) -> np.ndarray:
    """The ``shots`` rows of a draw, out of the row numbers of the training part, in its order.

    Draw 0 is the first rows of the part: the single draw of the ScaLearn paper, which all its seeds
    share (docs/methods.md#few-shot-runs). Draw d > 0 is the head of a permutation of the part, by
    seed d. Either way fewer shots of a draw are the head of more, and classes are not balanced.

    Raises:
        RequestError: fewer rows than shots.
    """
    if shots > len(rows):
        raise RequestError(
            f"Task {task!r}: --shots {shots}, but its training part has only {len(rows)} rows. Ask "
            "for fewer shots, or leave --shots out to train on all of them."
        )
    if not draw:
        return rows[:shots]
    # RandomState, because NumPy promises that its streams never change; Generator's may.
    order = np.random.RandomState(draw).permutation(len(rows))
    return rows[order[:shots]]


def one_class_note(spec: TaskSpec, train: Split) -> list[str]:
    """A remark where all shots are of one class, so that nothing can be learnt from them."""
    if spec.kind != "classification" or len(np.unique(train.labels)) > 1:
        return []
    return [f"train: all {len(train)} shots have the label {spec.labels[int(train.labels[0])]!r}"]
