"""A run before it runs: everything that decides its result, and its hash."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.device import resolve_precision
from mtl.files import sha256_json

if TYPE_CHECKING:
    from mtl.backbone import Backbone, Network
    from mtl.engine import Attached, RunSettings
    from mtl.tasks import TaskData, TaskSpec
    from mtl.zoo import Zoo

RESULT_SCHEMA = 1
"""Raised when the same settings would give another result; then nothing old is taken for done."""


@dataclass(frozen=True)
class Built:
    """A model attached to a fresh encoder.

    Attributes:
        network: encoder and head.
        attached: what the engine trains.
        save: writes weights, head and their configs into a folder.
    """

    network: Network
    attached: Attached
    save: Callable[[Path], None]


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
            "task": self.spec.to_dict(),
            "data": self.data.fingerprint,
            "protocol": self.data.protocol,
            "base": self.backbone.base.fingerprint,
            "tokenizer": self.backbone.base.tokenizer,
            "method": self.method,
            "method_settings": asdict(self.method_settings),
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
    def label(self) -> str:
        """How progress and messages call the run."""
        return f"{self.spec.id} {self.method} seed {self.seed}"

    @property
    def adapter_name(self) -> str:
        """The name inside stored adapter and head files: the task's id in ``[a-z0-9_]``."""
        return re.sub(r"[^a-z0-9_]+", "_", self.spec.id.lower())

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
