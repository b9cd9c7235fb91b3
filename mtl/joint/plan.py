"""A joint run before it runs: several tasks' data, one method, one seed; and its hash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.device import processes, resolve_precision
from mtl.files import sha256_json
from mtl.joint.sampler import JointFeed
from mtl.methods.method import settings_dict
from mtl.runs.plan import (
    RESULT_SCHEMA,
    Built,
    base_identity,
    data_section,
    file_name,
    task_section,
)
from mtl.zoo.names import predictions_file

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import Encoded, TaskData
    from mtl.engine import Evaluation, Feed, RunSettings
    from mtl.zoo import Zoo

NAME = "_joint"
"""What stands for the task in references: no task's own name starts like this."""

AVERAGE = "average"
"""The headline of a joint run: the mean over tasks of their headline metrics."""


def head_folder(task: str) -> str:
    """Where an entry holds the head of ``task``."""
    return f"heads/{task}"


@dataclass(frozen=True)
class JointPlan:
    """One joint run, resolved; a :class:`mtl.runs.Plan`.

    Attributes:
        datas: task id → its data, in the order of the run: draws and some methods depend on it.
        selected: ids of the tasks whose dev splits pick the best state.
        build: (plan, folder) → :class:`Built`: drawn from the seed, or, with a folder, loaded.
        placement: the signature of the adapter's sites, None without.
        heads: task id → design of its head, where it is not that of the settings.
    """

    suite: str
    datas: Mapping[str, TaskData]
    selected: Sequence[str]
    backbone: Backbone
    method: str
    method_settings: Any
    settings: RunSettings
    seed: int
    build: Callable[[Any, Path | None], Built]
    weights: str
    placement: Any = None
    kind: str = "joint"
    parents: Sequence[Mapping[str, Any]] = ()
    heads: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON."""
        return {
            "schema": RESULT_SCHEMA,
            "kind": self.kind,
            "tasks": [data.spec.portable() for data in self.datas.values()],
            "data": [data.fingerprint for data in self.datas.values()],
            "protocol": self.protocol,
            "base": base_identity(
                self.backbone,
                [data.spec for data in self.datas.values()],
                *(self.settings.head, *self.heads.values()),
            ),
            "processes": processes(),
            "method": self.method,
            "method_settings": settings_dict(self.method_settings),
            "run": {
                **self.settings.identity(),
                "precision": resolve_precision(self.settings.precision),
            },
            "seed": self.seed,
            **({"heads": dict(self.heads)} if self.heads else {}),
        }

    @cached_property
    def runhash(self) -> str:
        """Hex sha256 of :meth:`identity`."""
        return sha256_json(self.identity())

    @property
    def protocol(self) -> str:
        """How the data are split, the same for all tasks."""
        return next(iter(self.datas.values())).protocol

    @property
    def task_id(self) -> str:
        """``<suite>/_joint``."""
        return f"{self.suite}/{NAME}"

    @property
    def label(self) -> str:
        """How progress and messages call the run."""
        return f"{self.task_id} {self.method} seed {self.seed}"

    def ref(self, zoo: Zoo) -> str:
        """Where the entry goes in ``zoo``."""
        base = self.backbone.base.slug
        return zoo.location(base, self.suite, NAME, self.method, self.seed, self.runhash)

    def feed(self, encoded: Mapping[str, Encoded]) -> Feed:
        """Batches of one task each, drawn by size and temperature."""
        sampling = self.method_settings
        seed = self.seed if sampling.sampler_seed < 0 else sampling.sampler_seed
        return JointFeed(encoded, self.settings.batch_size, sampling.temperature, seed)

    def predictions_file(self, task: str, split: str) -> str:
        """``predictions/<task id>.safetensors`` of test, ``predictions-dev/…`` of dev."""
        return predictions_file(split, task)

    def sections(self) -> dict[str, Any]:
        """The manifest's ``task`` (with all of them under ``tasks``), ``data`` and ``head``."""
        datas = self.datas.values()
        sizes: dict[str, int] = {}
        for data in datas:
            for split, size in data.sizes.items():
                sizes[split] = sizes.get(split, 0) + int(size)
        return {
            "task": {
                "id": self.task_id,
                "suite": self.suite,
                "name": NAME,
                "kind": self.kind,
                "labels": None,
                "metrics": [AVERAGE],
                "headline": AVERAGE,
                "num_outputs": None,
                "tasks": [task_section(data.spec) for data in datas],
                "selected": list(self.selected),
            },
            "data": {
                "fingerprint": sha256_json([data.fingerprint for data in datas]),
                "protocol": self.protocol,
                "sizes": sizes,
                "notes": [f"{data.spec.id}: {note}" for data in datas for note in data.notes],
                "tasks": {task: data_section(data) for task, data in self.datas.items()},
            },
            "head": {
                "design": self.settings.head,
                **({"designs": dict(self.heads)} if self.heads else {}),
                "folders": {task: head_folder(task) for task in self.datas},
                "names": {task: file_name(task) for task in self.datas},
            },
        }

    def metric_name(self, task: str, metric: str) -> str:
        """``<task id>/<metric>``."""
        return f"{task}/{metric}"

    def metrics(self, found: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Any]:
        """Split → metric of every task that has the split, and over all tasks the average.

        The average's standard error takes the tasks' test examples as independent:
        sqrt(Σ_t s_t²) / T.
        """
        names = {split: None for splits in found.values() for split in splits}
        metrics: dict[str, Any] = {}
        for split in names:
            summaries = {
                task: splits[split].summary() for task, splits in found.items() if split in splits
            }
            metrics[split] = {
                self.metric_name(task, metric): item
                for task, summary in summaries.items()
                for metric, item in summary.items()
            }
            if len(summaries) == len(found):
                headlines = {
                    task: summary[self.datas[task].spec.headline]
                    for task, summary in summaries.items()
                }
                doubtful = [task for task, item in headlines.items() if item["caveat"]]
                metrics[split][AVERAGE] = {
                    **average(list(headlines.values())),
                    "caveat": f"over doubtful values: {', '.join(doubtful)}" if doubtful else None,
                }
        return metrics


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
