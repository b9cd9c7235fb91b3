"""Labels of dev and test rows that no training row has: their rows can only be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mtl.data.task_data import TaskData


def unseen_labels(data: TaskData) -> list[str]:
    """A remark per split of a classification with rows of classes that training never sees."""
    if data.spec.kind != "classification":
        return []
    known = np.unique(data.splits["train"].labels)
    found = []
    for name, split in data.splits.items():
        labels = np.asarray(split.labels)
        rows = ~np.isin(labels, known)
        if rows.any():
            names = ", ".join(repr(data.spec.labels[int(n)]) for n in np.unique(labels[rows]))
            found.append(
                f"{name}: {int(rows.sum()):,} of {len(labels):,} rows have a label that no "
                f"training row has: {names}"
            )
    return found
