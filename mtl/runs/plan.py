"""A run before it runs: everything that decides its result, and its hash."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mtl.backbone.heads import reads_pooler
from mtl.data import token_limit
from mtl.engine.device import processes, resolve_precision
from mtl.engine.feed import TaskFeed
from mtl.files import sha256_json
from mtl.methods.method import settings_dict
from mtl.zoo.names import predictions_file

if TYPE_CHECKING:
    from torch import nn

    from mtl.backbone import Backbone
    from mtl.data import Encoded, TaskData
    from mtl.engine import Evaluation, Feed, RunSettings, Trainable
    from mtl.tasks import TaskSpec
    from mtl.zoo import Zoo
    from mtl.zoo.composition import SourceWeights

RESULT_SCHEMA = 3
"""Raised when the same settings would give another result; then nothing old is taken for done."""


def file_name(task: str) -> str:
    """A task's id as stored adapters and heads name it inside: in ``[a-z0-9_]``."""
    return re.sub(r"[^a-z0-9_]+", "_", task.lower())


@dataclass(frozen=True)
class Built:
    """A model attached to a fresh encoder.

    Attributes:
        network: encoder and head, or heads.
        attached: what the engine trains.
        save: writes weights, head and their configs into a folder.
        shares: of a composition, how much it uses each source; asked after an evaluation on dev.
    """

    network: nn.Module
    attached: Trainable
    save: Callable[[Path], None]
    shares: Callable[[], SourceWeights | None] | None = None


class Plan(Protocol):
    """What the road from plan to entry needs to know of a run, of one task or of several."""

    @property
    def kind(self) -> str:
        """``adapter``, ``composition`` or ``joint``."""

    @property
    def suite(self) -> str: ...
    @property
    def task_id(self) -> str:
        """The task, or what stands for all of them; the manifest's ``task.id``."""

    @property
    def datas(self) -> Mapping[str, TaskData]:
        """Task id → its data, in the order of the run."""

    @property
    def selected(self) -> Sequence[str]:
        """Ids of the tasks whose dev splits pick the best state and end the run."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def method(self) -> str: ...
    @property
    def method_settings(self) -> Any: ...
    @property
    def settings(self) -> RunSettings: ...
    @property
    def seed(self) -> int: ...
    @property
    def placement(self) -> Any: ...
    @property
    def parents(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def weights(self) -> str: ...
    @property
    def runhash(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def build(self) -> Callable[[Any, Path | None], Built]: ...
    def identity(self) -> dict[str, Any]: ...
    def ref(self, zoo: Zoo) -> str: ...
    def feed(self, encoded: Mapping[str, Encoded]) -> Feed:
        """The training batches, from the encoded training split of each task."""

    def predictions_file(self, task: str, split: str) -> str:
        """Name in the entry of what it answered on a split of ``task``."""

    def sections(self) -> dict[str, Any]:
        """The manifest's ``task``, ``data`` and ``head``."""

    def metric_name(self, task: str, metric: str) -> str:
        """The key of a task's metric in the manifest."""

    def metrics(self, found: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Any]:
        """The manifest's ``metrics``, from task → split → evaluation."""


@dataclass(frozen=True)
class RunPlan:
    """One run: (task, method, model, seed, settings), resolved.

    Attributes:
        kind: ``adapter`` or ``composition``.
        build: (plan, folder) → :class:`Built`: new modules drawn from the seed, or, with a folder,
            the ones stored there.
        parents: the sources of a composition, as the manifest lists them.
        placement: the signature of the adapter's sites, None for a composition.
        suite: the suite the run belongs to (its entries lie below it).
    """

    kind: str
    spec: TaskSpec
    suite: str
    data: TaskData
    backbone: Backbone
    method: str
    method_settings: Any
    settings: RunSettings
    seed: int
    build: Callable[[RunPlan, Path | None], Built]
    placement: Any = None
    parents: tuple[Mapping[str, Any], ...] = ()
    weights: str = "adapters"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON."""
        return {
            "schema": RESULT_SCHEMA,
            "kind": self.kind,
            "task": self.spec.portable(),
            "data": self.data.fingerprint,
            "protocol": self.data.protocol,
            "base": base_identity(self.backbone, [self.spec], self.settings.head),
            "processes": processes(),
            "method": self.method,
            "method_settings": settings_dict(self.method_settings),
            "run": {
                **self.settings.identity(),
                "precision": resolve_precision(self.settings.precision),
            },
            "seed": self.seed,
            "parents": [parent["digest"] for parent in self.parents],
        }

    @cached_property
    def runhash(self) -> str:
        """Hex sha256 of :meth:`identity`."""
        return sha256_json(self.identity())

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.spec.id

    @property
    def datas(self) -> Mapping[str, TaskData]:
        """The one task's data."""
        return {self.spec.id: self.data}

    @property
    def selected(self) -> Sequence[str]:
        """The one task."""
        return (self.spec.id,)

    @property
    def label(self) -> str:
        """How progress and messages call the run."""
        return f"{self.spec.id} {self.method} seed {self.seed}"

    @property
    def adapter_name(self) -> str:
        """The name inside stored adapter and head files: the task's id in ``[a-z0-9_]``."""
        return file_name(self.spec.id)

    def ref(self, zoo: Zoo) -> str:
        """Where the entry goes in ``zoo``."""
        return zoo.location(
            self.backbone.base.slug,
            self.suite,
            self.spec.name,
            self.method,
            self.seed,
            self.runhash,
        )

    def feed(self, encoded: Mapping[str, Encoded]) -> Feed:
        """Shuffled batches of the one task."""
        task = self.spec.id
        return TaskFeed(task, encoded[task], self.settings.batch_size, self.seed)

    def predictions_file(self, task: str, split: str) -> str:
        """``predictions.safetensors`` of test, ``predictions-dev.safetensors`` of dev."""
        return predictions_file(split)

    def sections(self) -> dict[str, Any]:
        """The manifest's ``task``, ``data`` and ``head``."""
        return {
            "task": task_section(self.spec),
            "data": data_section(self.data),
            "head": {"design": self.settings.head, "name": self.adapter_name},
        }

    def metric_name(self, task: str, metric: str) -> str:
        """The metric's own name."""
        return metric

    def metrics(self, found: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Any]:
        """Split → metric → value, standard error, n."""
        return {split: item.summary() for split, item in found[self.spec.id].items()}


def base_identity(backbone: Backbone, specs: Sequence[TaskSpec], *heads: str) -> dict[str, Any]:
    """What of the base decides the result of a run on the tasks ``specs``, as JSON.

    Beside its function: the tokens that its tokenizer allows, where a task asks for more, and the
    pooler, where one of the heads reads it.
    """
    base = backbone.base
    limit = token_limit(backbone.tokenizer)
    found: dict[str, Any] = {"fingerprint": base.fingerprint}
    if any(spec.max_length > limit for spec in specs):
        found["tokens"] = limit
    if any(reads_pooler(head) for head in heads):
        found["pooler"] = base.pooler
    return found


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
    """A task's data as manifests describe them."""
    return {
        "fingerprint": data.fingerprint,
        "splits": dict(data.fingerprints),
        "protocol": data.protocol,
        "sizes": {key: int(value) for key, value in data.sizes.items()},
        "notes": list(data.notes),
        **_few_shot(data),
    }


def _few_shot(data: TaskData) -> dict[str, Any]:
    """How the training rows were drawn, and which they are: rows of an official split, from 0."""
    if not data.shots:
        return {}
    train = data.splits["train"]
    drawn = {"shots": data.shots, "draw": data.shot_draw, "split": train.source}
    return {"few_shot": {**drawn, "rows": [int(row) for row in train.rows]}}
