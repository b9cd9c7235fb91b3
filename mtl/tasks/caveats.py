"""When a metric's value says less than it seems: what is undefined, and what cannot be estimated.

A metric that is undefined is 0 by convention (:mod:`mtl.tasks.metrics`), and a test of one class
is answered perfectly by a model that knows nothing. Neither may stand in a table as if it had been
measured, so every summary of a metric carries a *caveat*, the reason in words, or None:

==============================  ===================================================================
metric                          caveat
==============================  ===================================================================
accuracy, question_em           all labels are one class
f1                              no label is the positive class, or all are
macro_f1                        a class of the task has no row (of sets: a label that no row has)
matthews, pearson, spearman     the labels, or the predictions, are all equal
pearson, spearman               fewer than three examples: two points always lie on a line
means over groups               no group
any                             one example, or all examples count alike: no standard error
==============================  ===================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl.tasks.metrics import METRICS, examples, standard_error

UNDEFINED = "undefined"
SHOWN = 3
"""Classes that a caveat names."""


def caveat(
    metric: str,
    predictions: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str] = (),
    outputs: int | None = None,
) -> str | None:
    """Why the value of ``metric`` is undefined or degenerate; None where it is neither.

    Args:
        names: of the classes, for the message.
        outputs: C of a classification or a multi-label task; None where classes are not counted.

    Raises:
        RequestError: unknown metric.
    """
    METRICS.get(metric)
    if not len(labels):
        return "there are no examples"
    if metric in {"pearson", "spearman"} and len(labels) < 3:
        return f"{len(labels)} examples: fewer than three always correlate, or not at all"
    if metric in {"pearson", "spearman", "matthews"}:
        for what, values in (("labels", labels), ("predictions", predictions)):
            if _equal(values):
                return f"{UNDEFINED}: all {what} are {_value(values, names)}"
        return None
    if metric == "f1" and not (labels == 1).any():
        return f"{UNDEFINED}: no label is {_name(1, names)}"
    if metric == "macro_f1":
        missing = _missing(labels, outputs)
        if missing:
            shown = ", ".join(_name(k, names) for k in missing[:SHOWN])
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            return f"no row of the class {shown}{more}"
    if metric in {"accuracy", "f1", "macro_f1", "question_em"} and _equal(labels):
        return f"all labels are {_value(labels, names)}"
    return None


def summarise(
    metric: str,
    value: float,
    predictions: np.ndarray,
    labels: np.ndarray,
    table: Mapping[str, Any] | None = None,
    *,
    names: Sequence[str] = (),
    outputs: int | None = None,
) -> dict[str, Any]:
    """``{"value", "stderr", "n", "caveat"}``, the form in manifests.

    ``stderr`` is None where it cannot be estimated: of one example, or where all count alike.

    Raises:
        RequestError, RunError: as :func:`mtl.tasks.standard_error`.
    """
    n = examples(metric, predictions, labels, table)
    error = standard_error(metric, predictions, labels, table)
    found = caveat(metric, predictions, labels, names=names, outputs=outputs)
    stated = {"value": value, "stderr": error, "n": n, "caveat": found}
    return without_certainty(stated) if n else {**stated, "stderr": None, "caveat": "no group"}


def without_certainty(item: Mapping[str, Any]) -> dict[str, Any]:
    """A summary whose standard error of 0 (of one example, or of equal ones) is None."""
    n, error = item.get("n"), item.get("stderr")
    if error is None or (error > 0 and n != 1):
        return dict(item)
    why = "one example has" if n == 1 else f"all {n} examples count alike:"
    return {**item, "stderr": None, "caveat": item.get("caveat") or f"{why} no standard error"}


def is_undefined(item: Mapping[str, Any]) -> bool:
    """Whether the value of a summary is a convention: there is nothing that it measures."""
    return str(item.get("caveat") or "").startswith(UNDEFINED)


def _missing(labels: np.ndarray, outputs: int | None) -> list[int]:
    if labels.ndim == 2:
        return [k for k in range(labels.shape[1]) if not labels[:, k].any()]
    there = set(np.unique(labels).tolist())
    return [k for k in range(outputs or 0) if k not in there]


def _equal(values: np.ndarray) -> bool:
    """All rows equal, as far as double precision tells."""
    if values.ndim > 1 or values.dtype.kind in "iub":
        return bool((values == values[0]).all())
    wide = values.astype(np.float64)
    return bool(np.ptp(wide) <= 4 * np.finfo(np.float64).eps * np.abs(wide).max())


def _value(values: np.ndarray, names: Sequence[str]) -> str:
    if values.ndim > 1:
        return "the same set"
    first = values[0]
    return _name(int(first), names) if values.dtype.kind in "iub" else f"{float(first):.4g}"


def _name(number: int, names: Sequence[str]) -> str:
    return repr(names[number]) if 0 <= number < len(names) else str(number)
