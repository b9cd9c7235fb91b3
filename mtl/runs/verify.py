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

from mtl.engine import EvalSet, evaluate, open_device
from mtl.errors import RequestError
from mtl.runs.comparing import compare_answers, far_metrics, own_metrics, pair_metrics
from mtl.runs.loading import (
    answer_passes,
    check_base,
    check_groups,
    load,
    precision_of,
    stored_settings,
    where_text,
)
from mtl.runs.recorded import change_text, remember_task, task_of
from mtl.runs.sections import AVERAGE
from mtl.runs.store import tolerance_of
from mtl.runs.workspace import load_task_data
from mtl.tasks.suites import SAMPLES
from mtl.zoo import read_predictions
from mtl.zoo.composition import gate_column
from mtl.zoo.names import predictions_file, predictions_of
from mtl.zoo.schema import joint_sections

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.engine import Device, Evaluation, Trainable
    from mtl.runs.workspace import Workspace
    from mtl.tasks import TaskSpec
    from mtl.zoo import Entry, Predictions


@dataclass(frozen=True)
class CheckedPart:
    """What an entry says about one of the tasks that it answers.

    Attributes:
        task: id of the task.
        data: its section of the manifest's ``data``.
        prefix: what its metrics begin with in the manifest.
    """

    task: str
    data: Mapping[str, Any]
    prefix: str = ""

    def files(self, entry: Entry) -> dict[str, str]:
        """Split → where ``entry`` stores its answers; test always, the others where it does."""
        task = self.task if self.prefix else ""
        named = {name: predictions_of(name) for name in entry.files}
        found = {of[0]: name for name, of in named.items() if of is not None and of[1] == task}
        return {**found, "test": predictions_file(task=task)}


def parts_of(entry: Entry) -> tuple[CheckedPart, ...]:
    """The one part of an entry of one task, or the tasks of a joint entry.

    Raises:
        ZooError: a joint manifest does not list its tasks, or says nothing about the data of one.
    """
    manifest = entry.manifest
    if manifest.kind != "joint":
        return (CheckedPart(manifest.task["id"], manifest.data),)
    return tuple(
        CheckedPart(task, data, f"{task}/")
        for task, (_, data) in joint_sections(manifest.task, manifest.data, entry.ref).items()
    )


@dataclass(frozen=True)
class Verification:
    """What a repeated evaluation found.

    Attributes:
        n: examples of the test split.
        max_logit_difference: between stored and repeated scores, on any split.
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
    *,
    tolerance: float | None = None,
    record: bool = True,
    precision: str = "",
) -> Verification:
    """Evaluate ``entry`` on its splits and compare with its predictions and metrics.

    All test splits, and dev where its predictions are stored.

    Its tasks are looked up by :func:`mtl.runs.recorded.task_of`: what a manifest says about where
    data lie is not followed. Data that agree are noted on this machine, for later commands.

    Args:
        tolerance: largest difference of a score, None for that of the precision; on the
            machine that trained the entry, with as many threads, it is 0 (entries of before
            `training.eval_batch_size`: about 1e-7, in bf16 roundings).
        record: write the ``verified`` record of the entry if everything agrees.
        precision: ``fp32`` or ``bf16`` in place of the entry's own; nothing is recorded then.

    Raises:
        RequestError: another base, an unknown task, or data that are not those of the entry.
        ZooError: files of the entry are damaged.
        RunError: the data cannot be read, or the zoo cannot be written.
    """
    zoo = workspace.zoo
    parts = parts_of(entry)
    check_base(entry, backbone.base, head=True)
    zoo.load_check(entry)
    stored = {
        part.task: {
            split: read_predictions(entry.folder, name) for split, name in part.files(entry).items()
        }
        for part in parts
    }
    datas = {}
    for part in parts:
        spec = task_of(entry, workspace, part.task)
        datas[part.task] = same_data(entry, spec, workspace, part)
    device = open_device(
        precision or precision_of(entry),
        hidden_size=backbone.base.hidden_size,
        threads=entry.manifest.training["threads"],
    )
    model = load(entry, zoo, backbone).attached
    model.network.to(device.torch_device)
    allowed = {
        task: tolerance_of(device.precision, kept["test"].scores)
        if tolerance is None
        else tolerance
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
    if entry.manifest.kind == "joint":
        problems += _over_all(entry, found, metrics, max(allowed.values()))
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
    if result.good and record and device.precision == precision_of(entry):
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
    stored: Mapping[str, Predictions],
    answer: Callable[[str], Evaluation],
    data: TaskData,
    tolerance: float,
) -> _Found:
    problems: list[str] = []
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    answers: dict[str, Mapping[str, float]] = {}
    gaps: dict[str, float] = {}
    looked: set[str] = set()
    equal = 0.0
    splits = sorted(entry.manifest.metrics.items(), key=lambda pair: pair[0] != "test")
    for split, values in splits:
        kept = stored.get(split)
        told = {
            name.removeprefix(part.prefix): item
            for name, item in values.items()
            if name.startswith(part.prefix)
        }
        if not told or (kept is None and not split.startswith("test")):
            continue
        looked.add(split)
        if split not in data.splits:
            problems.append(f"the split {split} of its metrics is not in the data")
            continue
        again = answer(split)
        answers[split] = again.metrics
        found = pair_metrics(told, again.metrics)
        metrics[split] = {f"{part.prefix}{name}": pair for name, pair in found.items()}
        if kept is None:
            problems += far_metrics(split, metrics[split], tolerance)
            continue
        wrong, gaps[split], same = compare_answers(kept, again, split, tolerance)
        wrong = wrong or own_metrics(told, kept, again)
        where = [*([part.task] if part.prefix else []), *([split] if split != "test" else [])]
        problems += [": ".join([" ".join(where), text] if where else [text]) for text in wrong]
        equal = same if split == "test" else equal
    for split in sorted(stored.keys() - looked):
        name = f" of {part.task}" if part.prefix else ""
        problems.append(f"it has no metrics of the {split} split{name}")
    n = len(stored["test"].row)
    largest = max(gaps.values(), default=float("inf"))
    return _Found(part.task, n, largest, equal, metrics, answers, data.spec.headline, problems)


def _over_all(
    entry: Entry,
    found: Sequence[_Found],
    metrics: dict[str, dict[str, dict[str, float | None]]],
    tolerance: float,
) -> list[str]:
    """Compare the metrics over all parts, and put them into ``metrics``."""
    problems: list[str] = []
    for split in metrics:
        if not all(split in item.again for item in found):
            continue
        headlines = [item.again[split][item.headline] for item in found]
        again = {AVERAGE: sum(headlines) / len(headlines)}
        told = entry.manifest.metrics.get(split, {})
        pairs = pair_metrics({name: told[name] for name in again if name in told}, again)
        problems += far_metrics(split, pairs, tolerance)
        metrics[split].update(pairs)
    return problems


def same_data(entry: Entry, spec: TaskSpec, workspace: Workspace, part: CheckedPart) -> TaskData:
    """The data of one of the entry's tasks, if the splits that it stores answers to are the same.

    A recipe may cut the tasks of a joint run each to a size of its own, of which the entry tells
    only the size: where the data differ, they are cut to that, and compared again.

    Raises:
        RequestError: they are others; says both fingerprints.
    """
    settings = stored_settings(entry)
    if part.data.get("sample") in SAMPLES:  # of one task of a joint run
        settings = replace(settings, sample=str(part.data["sample"]))
    protocol = part.data.get("protocol") or "official"
    gate = gate_column(entry.manifest.method_settings)
    data = load_task_data(spec, workspace, protocol, settings, gate)
    different = _different(entry, part, data)
    if different and protocol == "holdout":  # an entry of before it saw to rare classes
        before = load_task_data(spec, workspace, "holdout-1", settings, gate)
        if not _different(entry, part, before):
            check_groups(entry, before)
            return before
    sizes = part.data.get("sizes") or {}
    told = {split: size for split in ("dev", "test") if type(size := sizes.get(split)) is int}
    cut = [size for split, size in told.items() if 0 < size < data.sizes.get(split, 0)]
    if different and part.prefix and cut:
        cut_to = replace(settings, max_eval_samples=max(cut))
        data = load_task_data(spec, workspace, protocol, cut_to)
        different = _different(entry, part, data)
    if different:
        split, then, now = different
        raise RequestError(
            f"Cannot verify {entry.ref}: the data of {spec.id} ({split}) have the fingerprint "
            f"{str(now)[:12]}, those of the entry had {str(then)[:12]}."
            f"{change_text(spec, entry, part.task)} {where_text(spec)}"
        )
    check_groups(entry, data)
    return data


def _different(entry: Entry, part: CheckedPart, data: TaskData) -> tuple[str, Any, Any] | None:
    """The first split whose fingerprint is another one: its name, then, now."""
    compared = part.files(entry)
    pairs: list[tuple[str, Any, Any]] = [
        ("all splits", part.data.get("fingerprint"), data.fingerprint)
    ]
    splits = part.data.get("splits")
    if isinstance(splits, dict):
        pairs = [
            (split, value, data.fingerprints.get(split))
            for split, value in splits.items()
            if split.startswith("test") or split in compared
        ]
    return next((pair for pair in pairs if pair[1] != pair[2]), None)
