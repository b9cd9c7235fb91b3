"""The metrics of :mod:`mtl.tasks.metrics` as ``evaluate.Metric`` objects, made without network.

``evaluate.load("accuracy")`` downloads a script and runs it; these objects compute our numbers with
the same interface, so they go wherever an ``evaluate.Metric`` goes (``combine``, trainers).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mtl.errors import RequestError, unknown
from mtl.tasks.metrics import METRICS, Metric, score, standard_error

if TYPE_CHECKING:
    import evaluate

    from mtl.tasks.spec import TaskSpec


def as_evaluate(name: str, *, keep_in_memory: bool = True, **options: Any) -> evaluate.Metric:
    """One of our metrics as an ``evaluate.Metric``.

    ``compute(predictions=…, references=…)`` gives ``{name: value}``; with ``stderr=True`` also
    ``{name + "_stderr": …}``, as :func:`mtl.tasks.standard_error` computes it. Predictions and
    references are class numbers, values (regression), or rows of zeros and ones (multi-label).
    Metrics over groups of rows take the columns that they need as further arguments.

    Args:
        name: a metric of :data:`mtl.tasks.METRICS`.
        keep_in_memory: collect batches in memory; nothing is written anywhere. False collects them
            in the cache of ``evaluate``, which several processes can share.
        options: further arguments of ``evaluate.Metric`` (``cache_dir``, ``num_process``, …).

    Raises:
        RequestError: unknown metric; ``evaluate`` is not installed.
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    # The class's name is what the object calls itself.
    made: Any = type(name, (_scored(),), {"entry": METRICS.get(name)})
    return cast("evaluate.Metric", made(keep_in_memory=keep_in_memory, **options))


@dataclass(frozen=True)
class _Alone:
    """As much of a spec as scoring looks at."""

    id: str
    metrics: tuple[str, ...]


@cache
def _scored() -> Any:
    """The class of these objects; made when the first is, since ``evaluate`` is optional.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import evaluate
        from datasets import Features, Sequence, Value
    except ImportError as error:
        raise RequestError(
            "as_evaluate makes objects of the package evaluate, which is not installed: "
            "pip install evaluate"
        ) from error

    class _Scored(evaluate.Metric):
        """An ``evaluate.Metric`` over one of our metrics."""

        entry: Metric

        def _build_data_dir(self) -> str:
            # The original makes its folder even where everything is kept in memory.
            return "" if self.keep_in_memory else str(super()._build_data_dir())

        def _info(self) -> evaluate.MetricInfo:
            entry, needs = self.entry, _columns(self.entry)
            kinds = ["float64"] if set(entry.kinds) == {"regression"} else ["int64"]
            shapes: list[Any] = [Value(kinds[0])]
            if "multilabel" in entry.kinds:
                shapes.append(Sequence(Value(kinds[0])))
            extra = {column: Value(COLUMNS.get(column, "int64")) for column in needs}
            columns = f" Further columns: {', '.join(needs)}." if needs else ""
            return evaluate.MetricInfo(
                description=f"{entry.name} of {', '.join(entry.kinds)} tasks, as mtl computes "
                "it; 0 where it is undefined.",
                citation="",
                inputs_description=f"predictions, references: one per example.{columns}",
                features=[
                    Features({"predictions": shape, "references": shape, **extra})
                    for shape in shapes
                ],
            )

        def _compute(
            self, *, predictions: Any, references: Any, stderr: bool = False, **table: Any
        ) -> dict[str, float]:
            entry = self.entry
            found, labels = np.asarray(predictions), np.asarray(references)
            columns = {name: np.asarray(values) for name, values in table.items()}
            alone = cast("TaskSpec", _Alone(f"evaluate/{entry.name}", (entry.name,)))
            scores = score(alone, found, labels, columns)
            if stderr:
                error = standard_error(entry.name, found, labels, columns)
                scores[f"{entry.name}_stderr"] = error
            return scores

    return _Scored


def _columns(entry: Metric) -> tuple[str, ...]:
    """The columns of a metric over groups, in its first kind of task."""
    return next(iter(entry.needs.values()), ())


COLUMNS = {"f1": "float64", "em": "float64"}
"""Types of the columns that metrics over groups need, where they are not whole numbers."""
