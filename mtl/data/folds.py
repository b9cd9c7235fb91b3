"""Folds of a task's training and dev rows, for judging where dev alone is too small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.reading import Split
from mtl.data.sampling import spread, strata
from mtl.data.task_data import fingerprint_of
from mtl.files import sha256_json
from mtl.tasks.protocols import SEED

if TYPE_CHECKING:
    from mtl.data.task_data import TaskData


def folds(data: TaskData, count: int) -> list[TaskData]:
    """``data`` ``count`` times, its training and dev rows put together and divided anew.

    In fold i the i-th part of the rows is ``dev`` and the others are ``train``; the parts have the
    classes in their shares. No test row is in it.

    Raises:
        ValueError: rows that stay together (groups, the candidates of a query) or are cut into
            windows; see :func:`can_fold`.
    """
    if not can_fold(data):
        raise ValueError(f"the rows of {data.spec.id} cannot be divided one by one")
    whole = _together(data.splits["train"], data.splits["dev"])
    classes = strata(data.spec, whole.labels)
    order = spread(classes, SEED)
    order = order[np.argsort(classes[order], kind="stable")]  # dealt out class by class
    found = []
    for part in range(count):
        held = np.sort(order[part::count])
        rest = np.setdiff1d(order, held)
        splits = {"train": _rows(whole, rest), "dev": _rows(whole, held)}
        prints = {name: fingerprint_of(split) for name, split in splits.items()}
        found.append(
            replace(
                data,
                splits=splits,
                fingerprint=sha256_json(prints),
                fingerprints=prints,
                sizes={name: len(split) for name, split in splits.items()},
            )
        )
    return found


def can_fold(data: TaskData) -> bool:
    """Whether the rows are each their own: neither in groups nor in windows of one text."""
    kind = data.spec.kind
    return not data.spec.group_by and kind not in {"candidates", "span_extraction"}


def _together(first: Split, second: Split) -> Split:
    return Split(
        tuple([*one, *two] for one, two in zip(first.texts, second.texts, strict=True)),
        np.concatenate([first.labels, second.labels]),
        {name: _joined(first.table[name], second.table[name]) for name in first.table},
    )


def _joined(one: Any, two: Any) -> Any:
    return np.concatenate([one, two]) if isinstance(one, np.ndarray) else [*one, *two]


def _rows(whole: Split, rows: np.ndarray) -> Split:
    table: Mapping[str, Any] = {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
        for name, values in whole.table.items()
    }
    texts = tuple([column[row] for row in rows] for column in whole.texts)
    return Split(texts, whole.labels[rows], table)
