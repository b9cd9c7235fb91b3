"""A run before it runs: everything that decides its result, and its hash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.decoder_words import check_texts
from mtl.backbone.head_designs import reads_pooler
from mtl.engine.hardware import processes, resolve_precision
from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.methods.method import settings_dict

if TYPE_CHECKING:
    from torch import nn

    from mtl.backbone import Backbone
    from mtl.data import Encoded, TaskData
    from mtl.engine import Feed, RunSettings, Trainable
    from mtl.tasks import TaskSpec
    from mtl.zoo import Zoo
    from mtl.zoo.composition import SourceWeights

RESULT_SCHEMA = 3
"""Raised when the same settings would give another result; then nothing old is taken for done."""

JOINT_NAME = "_joint"
"""What stands for the task in references of joint runs: no task's own name starts like this."""


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


def one_task_feed(run: Run, encoded: Mapping[str, Encoded]) -> Feed:
    """Shuffled batches of the run's one task."""
    from mtl.engine import TaskFeed

    return TaskFeed(run.task_id, encoded[run.task_id], run.settings.batch_size, run.seed)


@dataclass(frozen=True)
class Run:
    """One run: (task or tasks, method, model, seed, settings), resolved.

    Attributes:
        kind: ``adapter``, ``composition`` or ``joint``.
        suite: the suite the run belongs to (its entries lie below it).
        datas: task id → its data, in the order of the run; one task unless the run is joint.
        build: (run, folder) → :class:`Built`: new modules drawn from the seed, or, with a folder,
            the ones stored there.
        placement: the signature of the adapter's sites, None for a composition.
        parents: the sources of a composition, as the manifest lists them.
        weights: how the entry stores its weights, as in a manifest.
        selected: ids of the tasks whose dev splits pick the best state; none named, all.
        heads: task id → design of its head, where it is not that of the settings.
        make_feed: (run, task → encoded training split) → the training batches.
        told: what else the manifest's ``training`` says: how the run was chosen. No part of it.
        control: of a composition, which twins stand for the other tasks' sources
            (:mod:`mtl.compose.control`); empty for none.
    """

    kind: str
    suite: str
    datas: Mapping[str, TaskData]
    backbone: Backbone
    method: str
    method_settings: Any
    settings: RunSettings
    seed: int
    build: Callable[[Run, Path | None], Built]
    placement: Any = None
    parents: Sequence[Mapping[str, Any]] = ()
    weights: str = "adapters"
    selected: Sequence[str] = ()
    heads: Mapping[str, str] = field(default_factory=dict)
    make_feed: Callable[[Run, Mapping[str, Encoded]], Feed] = one_task_feed
    told: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""

    def __post_init__(self) -> None:
        if self.kind != "joint" and len(self.datas) != 1:
            raise ValueError(f"a run of kind {self.kind!r} has one task, not {len(self.datas)}")
        if self.settings.init_from and self.kind != "adapter":
            raise RequestError(
                f"--init-from {self.settings.init_from}: only an adapter of stage one begins as a "
                f"stored one, not a run of {self.method}. Leave it out here."
            )
        held = self.settings.base_precision
        if held != "fp32":
            if self.weights == "delta":
                raise RequestError(
                    f"--base-precision {held} holds a base that stays as it is, and {self.method} "
                    "trains weights of the base. Leave --base-precision out."
                )
            from mtl.backbone.held import hold

            object.__setattr__(self, "backbone", hold(self.backbone, held))
        if not self.selected:
            object.__setattr__(self, "selected", tuple(self.datas))
        for data in self.datas.values():
            check_texts(self.backbone, data.spec)

    @property
    def joint(self) -> bool:
        """Whether it trains several tasks; then manifests and metrics name them."""
        return self.kind == "joint"

    @property
    def data(self) -> TaskData:
        """The first task's data; those of the run where there is one task."""
        return next(iter(self.datas.values()))

    @property
    def spec(self) -> TaskSpec:
        """The first task; that of the run where there is one."""
        return self.data.spec

    @property
    def task_id(self) -> str:
        """The task's id; ``<suite>/_joint`` of several. The manifest's ``task.id``."""
        return f"{self.suite}/{JOINT_NAME}" if self.joint else self.spec.id

    @property
    def protocol(self) -> str:
        """How its data were split; of a joint run over tasks that differ in that, all of them."""
        return ", ".join(dict.fromkeys(data.protocol for data in self.datas.values()))

    @property
    def label(self) -> str:
        """How progress and messages call the run."""
        control = f" (control: {self.control} twins)" if self.control else ""
        return f"{self.task_id} {self.method}{control} seed {self.seed}"

    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON."""
        return self._identity([data.spec for data in self.datas.values()], self.run_settings())

    def _identity(self, specs: Sequence[TaskSpec], settings: Mapping[str, Any]) -> dict[str, Any]:
        datas = self.datas.values()
        portable, prints = [spec.portable() for spec in specs], [d.fingerprint for d in datas]
        what: dict[str, Any] = {"task": portable[0], "data": prints[0]}
        if self.joint:
            what = {"tasks": portable, "data": prints}
            what |= {"heads": dict(self.heads)} if self.heads else {}
        else:
            what["parents"] = [parent["digest"] for parent in self.parents]
        heads = (self.settings.head, *self.heads.values())
        return {
            "schema": RESULT_SCHEMA,
            "kind": self.kind,
            **what,
            "protocol": self.protocol,
            "base": base_identity(self.backbone, specs, *heads),
            "processes": processes(),
            "method": self.method,
            "method_settings": settings_dict(self.method_settings),
            "run": dict(settings),
            "seed": self.seed,
        }

    def run_settings(self) -> dict[str, Any]:
        """The settings of the run as hash and manifest have them."""
        settings = self.settings
        if settings.pair and not any(self._pairs):  # it decides nothing
            settings = replace(settings, pair="")
        return {
            **settings.identity(),
            "precision": resolve_precision(self.settings.precision),
            **({"control": self.control} if self.control else {}),
        }

    @cached_property
    def runhash(self) -> str:
        """Hex sha256 of :meth:`identity`."""
        return sha256_json(self.identity())

    @cached_property
    def former_hash(self) -> str | None:
        """The hash that this run had when ``pair`` counted for single texts, too.

        None where it is the same one.
        """
        pair = self.settings.pair
        if not pair or all(self._pairs):
            return None
        specs = [replace(data.spec, pair=pair) for data in self.datas.values()]
        return sha256_json(self._identity(specs, self.run_settings() | {"pair": pair}))

    @property
    def _pairs(self) -> list[bool]:
        """Of every task, whether its rows have more than one text."""
        return [len(data.spec.inputs) > 1 for data in self.datas.values()]

    def ref(self, zoo: Zoo) -> str:
        """Where the entry goes in ``zoo``."""
        name = JOINT_NAME if self.joint else self.spec.name
        base = self.backbone.base.slug
        # apart from what it is a control of, so that "entail/scalearn/seed0" stays one entry
        method = f"{self.method}-control" if self.control else self.method
        return zoo.location(base, self.suite, name, method, self.seed, self.runhash)

    def feed(self, encoded: Mapping[str, Encoded]) -> Feed:
        """The training batches, from the encoded training split of each task."""
        return self.make_feed(self, encoded)

    @property
    def planned_steps(self) -> int:
        """Optimiser steps of the run's (first) stage."""
        settings = self.settings
        rows = sum(data.sizes["train"] for data in self.datas.values())
        return settings.max_steps or settings.epochs * -(-rows // settings.batch_size)


def base_identity(backbone: Backbone, specs: Sequence[TaskSpec], *heads: str) -> dict[str, Any]:
    """What of the base decides the result of a run on the tasks ``specs``, as JSON.

    Beside its function: the tokens that its tokenizer allows, where a task asks for more, and the
    pooler, where one of the heads reads it.
    """
    base = backbone.base
    limit = backbone.tokens
    found: dict[str, Any] = {"fingerprint": base.fingerprint}
    if any(spec.max_length > limit for spec in specs):
        found["tokens"] = limit
    if any(reads_pooler(head) for head in heads):
        found["pooler"] = base.pooler
    return found
