"""Evaluate a stored entry again and compare with what it says about itself.

Three things are compared: the stored predictions with the stored metrics (no model needed), the
data of today with the data of then, and what the loaded entry answers now with what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.engine import EvalSet, evaluate, open_device
from mtl.errors import RequestError, RunError
from mtl.runs.loading import answer_passes, check_base, stored_settings, where_text
from mtl.runs.recorded import change_text, remember_task, task_of
from mtl.runs.store import tolerance_of
from mtl.runs.workspace import load_task_data
from mtl.tasks import score
from mtl.zoo import read_predictions
from mtl.zoo.names import predictions_file

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.engine import Device, Evaluation, Trainable
    from mtl.runs.workspace import Workspace
    from mtl.tasks import TaskSpec
    from mtl.zoo import Entry, Predictions, Zoo

Loader = Callable[["Entry", "Zoo", "Backbone"], "Trainable"]
"""An entry of some kind as a frozen model that answers ``logits(batch)``."""

METRIC_TOLERANCE = 1e-6

Overall = Callable[[Mapping[str, float]], Mapping[str, float]]
"""Task id → its headline metric on a split, to the metrics over all tasks, by their names."""


@dataclass(frozen=True)
class CheckedPart:
    """What an entry says about one of the tasks that it answers.

    Attributes:
        task: id of the task.
        data: its section of the manifest's ``data``.
        file: where the entry stores its predictions.
        prefix: what its metrics begin with in the manifest.
    """

    task: str
    data: Mapping[str, Any]
    file: str
    prefix: str = ""


def whole(entry: Entry) -> tuple[CheckedPart, ...]:
    """The one part of an entry of one task."""
    return (CheckedPart(entry.manifest.task["id"], entry.manifest.data, predictions_file()),)


@dataclass(frozen=True)
class Verification:
    """What a repeated evaluation found.

    Attributes:
        n: examples of the test split.
        max_logit_difference: between stored and repeated scores.
        equal_predictions: share of the predictions that are the same.
        metrics: split → metric → ``{"stored", "again"}``.
        problems: what does not agree; empty when the entry is what it says.
    """

    ref: str
    n: int
    max_logit_difference: float
    equal_predictions: float
    metrics: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether everything agrees."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {**asdict(self), "problems": list(self.problems), "good": self.good}

    def record(self, device: Device) -> dict[str, Any]:
        """The ``verified`` record of a manifest."""
        return {
            "split": "test",
            "n": self.n,
            "max_logit_difference": self.max_logit_difference,
            "equal_predictions": self.equal_predictions,
            "metrics": {name: value["again"] for name, value in self.metrics["test"].items()},
            "device": device.describe()["device"],
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def verify_entry(
    entry: Entry,
    workspace: Workspace,
    backbone: Backbone,
    load: Loader,
    *,
    parts: Sequence[CheckedPart] | None = None,
    overall: Overall | None = None,
    tolerance: float | None = None,
    record: bool = True,
) -> Verification:
    """Evaluate ``entry`` on its test splits and compare with its predictions and metrics.

    Its tasks are looked up by :func:`mtl.runs.recorded.task_of`: what a manifest says about where
    data lie is not followed. Data that agree are noted on this machine, for later commands.

    Args:
        load: makes the model of this kind of entry.
        parts: the tasks that the entry answers; None for its one.
        overall: metrics over all parts, of each split that every part has.
        tolerance: largest difference of a score, None for that of the entry's precision; on the
            machine that trained the entry, with as many threads, it is 0 (entries of before
            `training.eval_batch_size`: about 1e-7, in bf16 roundings).
        record: write the ``verified`` record of the entry if everything agrees.

    Raises:
        RequestError: another base, an unknown task, or data that are not those of the entry.
        ZooError: files of the entry are damaged.
        RunError: the data cannot be read, or the zoo cannot be written.
    """
    zoo = workspace.zoo
    parts = whole(entry) if parts is None else parts
    check_base(entry, backbone.base, head=True)
    zoo.load_check(entry)
    stored = {part.task: read_predictions(entry.folder, part.file) for part in parts}
    datas = {}
    for part in parts:
        spec = task_of(entry, workspace, part.task)
        datas[part.task] = same_data(entry, spec, workspace, part)
    device = open_device(
        _precision(entry),
        hidden_size=backbone.base.hidden_size,
        threads=entry.manifest.training["threads"],
    )
    model = load(entry, zoo, backbone)
    model.network.to(device.torch_device)
    allowed = {
        task: tolerance_of(device.precision, kept.scores) if tolerance is None else tolerance
        for task, kept in stored.items()
    }
    found = [
        _verify_part(
            entry,
            part,
            stored[part.task],
            partial(_evaluate, entry, model, datas[part.task], workspace, backbone, device),
            datas[part.task],
            allowed[part.task],
        )
        for part in parts
    ]
    for item in found:
        if item.problems:
            spec = datas[item.task].spec
            item.problems.extend(filter(None, [change_text(spec, entry, item.task).strip(" .")]))
        else:
            remember_task(datas[item.task], workspace)
    problems = [problem for item in found for problem in item.problems]
    metrics: dict[str, dict[str, dict[str, float | None]]] = {"test": {}}
    for item in found:
        for split, values in item.metrics.items():
            metrics.setdefault(split, {}).update(values)
    if overall is not None:
        problems += _over_all(entry, found, overall, metrics, max(allowed.values()))
    checked = {name for values in metrics.values() for name in values}
    told = {name for split in metrics for name in entry.manifest.metrics.get(split, {})}
    problems += [f"its metric {name} is none of its tasks" for name in sorted(told - checked)]
    n = sum(item.n for item in found)
    result = Verification(
        entry.ref,
        n,
        max((item.difference for item in found), default=float("inf")),
        sum(item.equal * item.n for item in found) / n if n else 0.0,
        metrics,
        tuple(problems),
    )
    if result.good and record:
        zoo.record_verified(entry, result.record(device))
    return result


@dataclass(frozen=True)
class _Found:
    """What the repeated evaluation of one part gave; ``again``: split → the task's metrics."""

    task: str
    n: int
    difference: float
    equal: float
    metrics: Mapping[str, dict[str, dict[str, float | None]]]
    again: Mapping[str, Mapping[str, float]]
    headline: str
    problems: list[str]


def _evaluate(
    entry: Entry,
    model: Trainable,
    data: TaskData,
    workspace: Workspace,
    backbone: Backbone,
    device: Device,
    split: str,
) -> Evaluation:
    tokens = backbone.encode(data, split, workspace.cache)
    return evaluate(model, EvalSet(data.spec, tokens), device, answer_passes(entry))


def _verify_part(
    entry: Entry,
    part: CheckedPart,
    stored: Predictions,
    answer: Callable[[str], Evaluation],
    data: TaskData,
    tolerance: float,
) -> _Found:
    problems: list[str] = []
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    answers: dict[str, Mapping[str, float]] = {}
    difference, equal = float("inf"), 0.0
    for split, values in entry.manifest.metrics.items():
        told = {
            name.removeprefix(part.prefix): item
            for name, item in values.items()
            if name.startswith(part.prefix)
        }
        if not split.startswith("test") or not told:
            continue
        if split not in data.splits:
            problems.append(f"the split {split} of its metrics is not in the data")
            continue
        again = answer(split)
        answers[split] = again.metrics
        found = _metrics(told, again.metrics)
        metrics[split] = {f"{part.prefix}{name}": pair for name, pair in found.items()}
        if split == "test":
            wrong, difference, equal = _compare(stored, again, tolerance)
            wrong = wrong or _own_metrics(told, stored, again)
            problems += [f"{part.task}: {text}" if part.prefix else text for text in wrong]
        else:
            problems += _far(split, metrics[split], tolerance)
    if "test" not in metrics:
        name = f" of {part.task}" if part.prefix else ""
        problems.append(f"it has no metrics of the test split{name}")
    n = len(stored.row)
    headline = data.spec.headline
    return _Found(part.task, n, difference, equal, metrics, answers, headline, problems)


def _over_all(
    entry: Entry,
    found: Sequence[_Found],
    overall: Overall,
    metrics: dict[str, dict[str, dict[str, float | None]]],
    tolerance: float,
) -> list[str]:
    """Compare the metrics over all parts, and put them into ``metrics``."""
    problems: list[str] = []
    for split in metrics:
        if not all(split in item.again for item in found):
            continue
        again = overall({item.task: item.again[split][item.headline] for item in found})
        told = entry.manifest.metrics.get(split, {})
        pairs = _metrics({name: told[name] for name in again if name in told}, again)
        problems += _far(split, pairs, tolerance)
        metrics[split].update(pairs)
    return problems


def same_data(entry: Entry, spec: TaskSpec, workspace: Workspace, part: CheckedPart) -> TaskData:
    """The data of one of the entry's tasks, if its test splits are those it was tested on.

    A recipe may cut the tasks of a joint run each to a size of its own, of which the entry tells
    only the size: where the data differ, they are cut to that, and compared again.

    Raises:
        RequestError: they are others; says both fingerprints.
    """
    settings = stored_settings(entry)
    protocol = part.data.get("protocol") or "official"
    data = load_task_data(spec, workspace, protocol, settings)
    different = _different(part, data)
    if different and protocol == "holdout":  # an entry of before it saw to rare classes
        before = load_task_data(spec, workspace, "holdout-1", settings)
        if not _different(part, before):
            return before
    size = (part.data.get("sizes") or {}).get("test")
    if different and part.prefix and type(size) is int and 0 < size < data.sizes.get("test", 0):
        data = load_task_data(spec, workspace, protocol, replace(settings, max_eval_samples=size))
        different = _different(part, data)
    if different:
        split, then, now = different
        raise RequestError(
            f"Cannot verify {entry.ref}: the data of {spec.id} ({split}) have the fingerprint "
            f"{str(now)[:12]}, those of the entry had {str(then)[:12]}."
            f"{change_text(spec, entry, part.task)} {where_text(spec)}"
        )
    return data


def _different(part: CheckedPart, data: TaskData) -> tuple[str, Any, Any] | None:
    """The first split whose fingerprint is another one: its name, then, now."""
    pairs: list[tuple[str, Any, Any]] = [
        ("all splits", part.data.get("fingerprint"), data.fingerprint)
    ]
    splits = part.data.get("splits")
    if isinstance(splits, dict):
        pairs = [
            (split, value, data.fingerprints.get(split))
            for split, value in splits.items()
            if split.startswith("test")
        ]
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _precision(entry: Entry) -> str:
    precision = str(entry.manifest.training["precision"])
    return precision if precision in {"fp32", "bf16"} else "fp32"


def _own_metrics(told: Mapping[str, Any], stored: Predictions, again: Evaluation) -> list[str]:
    """Whether the stored predictions give the stored metrics, on the rows they are of."""
    try:
        found = score(again.spec, stored.prediction, stored.label, again.table)
    except (RunError, ValueError) as error:
        return [f"its stored predictions cannot be scored: {error}"]
    return [
        f"its stored predictions give {name} {value:.6f}, its manifest says {_text(told[name])}"
        for name, value in found.items()
        if name in told and not _near(told[name]["value"], value, METRIC_TOLERANCE)
    ]


def _compare(
    stored: Predictions, again: Evaluation, tolerance: float
) -> tuple[list[str], float, float]:
    if not np.array_equal(stored.row, again.row):
        message = f"it stores {len(stored.row)} predictions, the test split has {len(again.row)}"
        return [f"{message} rows, or others"], float("inf"), 0.0
    if stored.scores.shape != again.scores.shape:
        shapes = f"{stored.scores.shape}, the model gives {again.scores.shape}"
        return [f"its stored scores have the shape {shapes}"], float("inf"), 0.0
    problems = []
    if not np.allclose(stored.label, again.label, atol=1e-6):
        problems.append("its stored labels are not those of the data")
    gap = np.abs(stored.scores.astype(np.float64) - again.scores)
    difference = float(gap.max()) if gap.size else 0.0
    equal = float(np.mean(stored.prediction == again.prediction)) if again.prediction.size else 1.0
    if not difference <= tolerance:  # NaN is not near
        problems.append(
            f"its scores differ by up to {difference:.3g} (allowed: {tolerance:g}) from the stored "
            f"ones; {equal:.2%} of {len(again.row)} predictions are equal"
        )
    return problems, difference, equal


def _metrics(
    stored: Mapping[str, Any], again: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    return {
        name: {"stored": item["value"], "again": again.get(name)} for name, item in stored.items()
    }


def _far(
    split: str, metrics: Mapping[str, Mapping[str, float | None]], tolerance: float
) -> list[str]:
    """A split whose predictions are not stored is compared by its metrics alone."""
    return [
        f"{name} on {split} is {pair['again']}, its manifest says {pair['stored']}"
        for name, pair in metrics.items()
        if not _near(pair["stored"], pair["again"], tolerance)
    ]


def _near(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None or not np.isfinite(other):
        return one is None and (other is None or not np.isfinite(other))
    return abs(one - other) <= tolerance


def _text(item: Mapping[str, Any]) -> str:
    return "none" if item["value"] is None else f"{item['value']:.6f}"
