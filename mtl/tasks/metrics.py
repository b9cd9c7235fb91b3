"""Metrics of tasks and their standard errors, computed by scikit-learn and scipy.

One rule holds for all: a metric that is undefined on constant predictions (or labels) is 0, never
NaN, so that a collapsed model ranks last instead of poisoning means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RunError, unknown
from mtl.registry import Registry
from mtl.tasks import bootstrap
from mtl.tasks.answer_metrics import MEASURES, best, normalise

if TYPE_CHECKING:
    from mtl.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Metric:
    """A score of predictions against labels, the higher the better.

    Attributes:
        name: as in a task's YAML.
        kinds: the kinds of task that it is defined for.
        compute: labels, predictions and counts (how often each row stands for itself) → score.
        binary: whether it needs exactly two classes; class 1 is the positive one.
        formula: labels, predictions → standard error, or None: the bootstrap.
        resampled: as ``compute``, for many samples at once: counts (S,P) → scores (S,). Given where
            neither ``formula`` nor ``grouped`` is.
        grouped: labels, predictions and the split's table → one value per example, where an example
            is a group of rows (a query, a question) or a question with several right answers; the
            score is their mean. ``compute`` is then None.
        needs: kind of task → columns of the table that ``grouped`` reads.
    """

    name: str
    kinds: tuple[str, ...]
    compute: Callable[[np.ndarray, np.ndarray, np.ndarray], float] | None
    binary: bool = False
    formula: Callable[[np.ndarray, np.ndarray], float] | None = None
    resampled: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    grouped: Callable[[np.ndarray, np.ndarray, Mapping[str, Any]], np.ndarray] | None = None
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def unfit(self, kind: str, classes: int) -> str | None:
        """Why a task of this kind with so many classes cannot have this metric, or None."""
        if kind not in self.kinds:
            return f"{self.name!r} is for {' and '.join(self.kinds)}, the task is {kind}"
        if self.binary and classes != 2:
            return f"{self.name!r} needs two classes, the task has {classes}; use 'macro_f1'"
        return None


METRICS: Registry[Metric] = Registry("metric", Metric)
_CELLS = 1 << 21  # counts that are held at once while resampling: 16 MB


def score(
    spec: TaskSpec,
    predictions: np.ndarray,
    labels: np.ndarray,
    table: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """All metrics of a task.

    Args:
        spec: the task; its metrics are computed in their order.
        predictions: one per row, as :func:`mtl.tasks.decode` gives them.
        labels: likewise.
        table: ``Encoded.table`` of the split, for metrics over groups of rows.

    Raises:
        RunError: lengths differ, nothing to score, or predictions that are not finite.
    """
    _check(predictions, labels, f"task {spec.id!r}")
    return {name: _score(METRICS.get(name), predictions, labels, table) for name in spec.metrics}


def _score(
    metric: Metric, predictions: np.ndarray, labels: np.ndarray, table: Mapping[str, Any] | None
) -> float:
    if metric.grouped is not None:
        values = metric.grouped(labels, predictions, _columns(metric, table))
        return float(np.mean(values)) if len(values) else 0.0  # nothing chosen, nothing right
    assert metric.compute is not None  # one of the two is given
    return float(metric.compute(labels, predictions, np.ones(len(labels))))


def _columns(metric: Metric, table: Mapping[str, Any] | None) -> Mapping[str, Any]:
    held = table or {}
    sets = metric.needs.values()
    if not any(all(name in held for name in names) for names in sets):
        wanted = " or ".join(", ".join(names) for names in sets)
        raise RunError(
            f"Metric {metric.name!r} needs {wanted} of every row; the task's rows have not: its "
            "'prepare' function makes them."
        )
    return held


def examples(
    metric: str, predictions: np.ndarray, labels: np.ndarray, table: Mapping[str, Any] | None
) -> int:
    """How many examples a metric is the mean over: rows, or groups of them."""
    entry = METRICS.get(metric)
    if entry.grouped is None:
        return len(labels)
    return len(entry.grouped(labels, predictions, _columns(entry, table)))


def standard_error(
    metric: str,
    predictions: np.ndarray,
    labels: np.ndarray,
    table: Mapping[str, Any] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> float:
    """The standard error of a metric over the choice of test examples.

    Accuracy: sqrt(p (1 − p) / n). Means over groups: their standard deviation / sqrt(groups).
    Others: the standard deviation over ``samples`` bootstrap samples of the examples, drawn with
    ``seed``. Equal (label, prediction) pairs are drawn together (multinomial counts), which is the
    same distribution at a fraction of the cost.

    Raises:
        RequestError: unknown metric.
        RunError: as :func:`score`.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    _check(predictions, labels, f"metric {metric!r}")
    entry = METRICS.get(metric)
    if entry.grouped is not None:
        each = entry.grouped(labels, predictions, _columns(entry, table))
        return float(np.std(each, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
    if entry.formula is not None:
        return float(entry.formula(labels, predictions))
    rows = len(labels)
    both = np.concatenate(
        [labels.reshape(rows, -1), predictions.reshape(rows, -1)], axis=1, dtype=np.float64
    )
    _, first, counts = np.unique(both, axis=0, return_index=True, return_counts=True)
    labels, predictions = labels[first], predictions[first]
    assert entry.resampled is not None  # one of the two is given
    rng = np.random.default_rng(seed)
    values: list[np.ndarray] = []
    step = max(1, _CELLS // len(counts))
    for start in range(0, samples, step):
        drawn = rng.multinomial(rows, counts / rows, size=min(step, samples - start))
        values.append(entry.resampled(labels, predictions, drawn.astype(np.float64)))
    return float(np.std(np.concatenate(values), ddof=1))


def _check(predictions: np.ndarray, labels: np.ndarray, where: str) -> None:
    if len(predictions) != len(labels):
        raise RunError(f"{where}: {len(predictions)} predictions for {len(labels)} labels.")
    if not len(labels):
        raise RunError(f"{where}: there are no examples to score.")
    if not np.isfinite(predictions).all():
        bad = int((~np.isfinite(predictions)).sum())
        raise RunError(
            f"{where}: {bad} of {predictions.size} predictions are NaN or infinite; the model has "
            "diverged. Use a lower learning rate."
        )


def _accuracy(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions, sample_weight=counts))


def _accuracy_error(labels: np.ndarray, predictions: np.ndarray) -> float:
    share = _accuracy(labels, predictions, np.ones(len(labels)))
    return float(np.sqrt(share * (1 - share) / len(labels)))


def _f1(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0, sample_weight=counts))


def _macro_f1(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(
        f1_score(labels, predictions, average="macro", zero_division=0, sample_weight=counts)
    )


def _matthews(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    if _constant(labels) or _constant(predictions):
        return 0.0
    return float(matthews_corrcoef(labels, predictions, sample_weight=counts))


def _pearson(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> float:
    from scipy.stats import pearsonr

    if _constant(labels) or _constant(predictions):
        return 0.0
    return _defined(pearsonr(*_repeated(labels, predictions, counts)).statistic)


def _spearman(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> float:
    from scipy.stats import spearmanr

    if _constant(labels) or _constant(predictions):
        return 0.0
    return _defined(spearmanr(*_repeated(labels, predictions, counts)).statistic)


def _repeated(
    labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every row as often as it counts, in double precision: scipy takes no weights here."""
    times = counts.astype(np.int64)
    return (
        np.repeat(labels.astype(np.float64), times),
        np.repeat(predictions.astype(np.float64), times),
    )


def _constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def _defined(value: float) -> float:
    # Values that differ by less than rounding leave scipy with 0/0, too.
    return float(value) if np.isfinite(value) else 0.0


def _all_right(labels: np.ndarray, predictions: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
    """1 for every group whose rows are all predicted rightly, else 0 (MultiRC's EM)."""
    _, group = np.unique(table["group"], return_inverse=True)
    wrong = np.bincount(group, weights=(labels != predictions).astype(np.float64))
    return (wrong == 0).astype(np.float64)


def _answered(column: str) -> Callable[[np.ndarray, np.ndarray, Mapping[str, Any]], np.ndarray]:
    """Per question, what the answer given is worth against all right answers.

    Candidates: the value of ``column`` at each group's chosen row, in the order of the groups.
    Spans: the measure of the predicted span's text.
    """

    def values(labels: np.ndarray, predictions: np.ndarray, table: Mapping[str, Any]) -> np.ndarray:
        if column in table:
            return np.asarray(table[column], dtype=np.float64)[predictions == 1]
        said = [
            normalise(context[begin:end])
            for context, (begin, end) in zip(table["context"], predictions, strict=True)
        ]
        gold = ([normalise(text) for text in answers] for answers in table["answers"])
        measure = MEASURES[column]
        return np.array([best(measure, *pair) for pair in zip(said, gold, strict=True)])

    return values


_CLASSES = ("classification",)
_SETS = ("classification", "multilabel", "multiple_choice")
_NUMBERS = ("regression",)
METRICS.add("accuracy", Metric("accuracy", _SETS, _accuracy, formula=_accuracy_error))
METRICS.add("f1", Metric("f1", _CLASSES, _f1, binary=True, resampled=bootstrap.f1))
METRICS.add("macro_f1", Metric("macro_f1", _SETS, _macro_f1, resampled=bootstrap.macro_f1))
METRICS.add("matthews", Metric("matthews", _CLASSES, _matthews, resampled=bootstrap.matthews))
METRICS.add("pearson", Metric("pearson", _NUMBERS, _pearson, resampled=bootstrap.pearson))
METRICS.add("spearman", Metric("spearman", _NUMBERS, _spearman, resampled=bootstrap.spearman))
METRICS.add(
    "question_em",
    Metric(
        "question_em",
        _CLASSES,
        None,
        grouped=_all_right,
        needs=dict.fromkeys(_CLASSES, ("group",)),
    ),
)
for _name, _column in (("token_f1", "f1"), ("exact_match", "em")):
    METRICS.add(
        _name,
        Metric(
            _name,
            ("candidates", "span_extraction"),
            None,
            grouped=_answered(_column),
            needs={"candidates": (_column,), "span_extraction": ("answers",)},
        ),
    )
