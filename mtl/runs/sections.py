"""What a manifest says of a run's tasks, data, heads and metrics: of one task, or of several.

An entry of one task names its metrics as they are; a joint one names them ``<task id>/<metric>``
and adds the ``average`` over tasks of their headline metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.files import sha256_json
from mtl.runs.run import JOINT_NAME

if TYPE_CHECKING:
    from mtl.data import TaskData
    from mtl.engine import Evaluation
    from mtl.runs.run import Run
    from mtl.tasks import TaskSpec

AVERAGE = "average"
"""The headline of a joint run: the mean over tasks of their headline metrics."""


def file_name(task: str) -> str:
    """A task's id as stored adapters and heads name it inside: in ``[a-z0-9_]``."""
    return re.sub(r"[^a-z0-9_]+", "_", task.lower())


def head_folder(task: str) -> str:
    """Where a joint entry holds the head of ``task``."""
    return f"heads/{task}"


def metric_name(run: Run, task: str, metric: str) -> str:
    """The key of a task's metric in the manifest."""
    return f"{task}/{metric}" if run.joint else metric


def sections(run: Run) -> dict[str, Any]:
    """The manifest's ``task``, ``data`` and ``head``."""
    if not run.joint:
        return {
            "task": task_section(run.spec),
            "data": data_section(run.data),
            "head": {"design": run.settings.head, "name": file_name(run.spec.id)},
        }
    datas = run.datas.values()
    sizes: dict[str, int] = {}
    for data in datas:
        for split, size in data.sizes.items():
            sizes[split] = sizes.get(split, 0) + int(size)
    return {
        "task": {
            "id": run.task_id,
            "suite": run.suite,
            "name": JOINT_NAME,
            "kind": run.kind,
            "labels": None,
            "metrics": [AVERAGE],
            "headline": AVERAGE,
            "num_outputs": None,
            "tasks": [task_section(data.spec) for data in datas],
            "selected": list(run.selected),
        },
        "data": {
            "fingerprint": sha256_json([data.fingerprint for data in datas]),
            "protocol": run.protocol,
            "sizes": sizes,
            "notes": [f"{data.spec.id}: {note}" for data in datas for note in data.notes],
            "tasks": {task: data_section(data) for task, data in run.datas.items()},
        },
        "head": {
            "design": run.settings.head,
            **({"designs": dict(run.heads)} if run.heads else {}),
            "folders": {task: head_folder(task) for task in run.datas},
            "names": {task: file_name(task) for task in run.datas},
        },
    }


def task_section(spec: TaskSpec) -> dict[str, Any]:
    """A task as manifests describe it."""
    return {
        "id": spec.id,
        "suite": spec.suite,
        "name": spec.name,
        "kind": spec.kind,
        "labels": list(spec.labels),
        "metrics": list(spec.metrics),
        "headline": spec.headline,
        "num_outputs": spec.num_outputs,
        "spec": spec.portable(),
    }


def data_section(data: TaskData) -> dict[str, Any]:
    """A task's data as manifests describe them; of few-shot runs, which official rows they are."""
    found = {
        "fingerprint": data.fingerprint,
        "splits": dict(data.fingerprints),
        "protocol": data.protocol,
        "sizes": {key: int(value) for key, value in data.sizes.items()},
        "notes": list(data.notes),
    }
    if data.sample != "first" and data.limited:
        found["sample"] = data.sample
    if data.shots or data.shots_per_class:
        train = data.splits["train"]
        many = {"per_class": data.shots_per_class} if data.shots_per_class else {}
        drawn = {"shots": data.shots, **many, "draw": data.shot_draw, "split": train.source}
        found["few_shot"] = {**drawn, "rows": [int(row) for row in train.rows]}
    return found


def metrics(run: Run, found: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Any]:
    """The manifest's ``metrics``, from task → split → evaluation.

    Split → metric → value, standard error, n; of several tasks, every task's metrics on the splits
    that it has, and over all tasks the average. Its standard error takes the tasks' examples as
    independent: sqrt(Σ_t s_t²) / T.
    """
    names = {split: None for splits in found.values() for split in splits}
    written: dict[str, Any] = {}
    for split in names:
        summaries = {
            task: splits[split].summary() for task, splits in found.items() if split in splits
        }
        written[split] = {
            metric_name(run, task, metric): item
            for task, summary in summaries.items()
            for metric, item in summary.items()
        }
        if run.joint and len(summaries) == len(found):
            headlines = {
                task: summary[run.datas[task].spec.headline] for task, summary in summaries.items()
            }
            doubtful = [task for task, item in headlines.items() if item["caveat"]]
            written[split][AVERAGE] = {
                **average(list(headlines.values())),
                "caveat": f"over doubtful values: {', '.join(doubtful)}" if doubtful else None,
            }
    return written


def average(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of ``{"value", "stderr", "n"}`` over tasks; None where one of them is undefined."""

    def known(key: str) -> list[float] | None:
        values = [item[key] for item in items]
        return None if any(value is None for value in values) else [float(v) for v in values]

    values, errors = known("value"), known("stderr")
    return {
        "value": None if values is None else sum(values) / len(values),
        "stderr": None if errors is None else sum(e * e for e in errors) ** 0.5 / len(errors),
        "n": sum(item["n"] for item in items),
    }
