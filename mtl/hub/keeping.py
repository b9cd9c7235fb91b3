"""An adapter that somebody else's library wrote, as an entry of the zoo: what is known of it.

Its files are written anew from the tensors; what nobody recorded (data, settings, results) stays
unknown, and the manifest says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mtl.backbone import heads
from mtl.errors import RequestError
from mtl.files import sha256_json, slug
from mtl.hub.foreign_files import FoundHead
from mtl.zoo import Manifest
from mtl.zoo.machine import portable_command

if TYPE_CHECKING:
    from mtl.backbone import Backbone, Network
    from mtl.methods.method import Method
    from mtl.tasks import TaskSpec
    from mtl.zoo import Zoo

NAME = "foreign"
"""Name of the adapter and its head inside the files, and suite of tasks that nobody named."""
_UNKNOWN = {
    "steps": 0, "epochs": None, "best_step": None, "seconds": 0.0, "device": "unknown",
    "precision": "unknown", "threads": None, "stopped": None,
}  # fmt: skip
_GENERIC = re.compile(r"(?i)(label_?)?\d+")


@dataclass(frozen=True)
class Claims:
    """What the user knows of a foreign adapter and its files do not say.

    Attributes:
        model: the encoder that it was trained on.
        task: id or name of the task; None makes one up from the repository's name.
        protocol: the split protocol of its training; compositions ask for it.
        seed: recorded as its seed.
        allow_bin: read ``.bin`` files, tensors only, where there are no safetensors.
        name: of the task that is made up where none is named.
    """

    model: str
    task: str | None = None
    protocol: str | None = None
    seed: int = 0
    allow_bin: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None and (self.task is not None or slug(self.name) != self.name):
            why = (
                "the entry is called as the task that --task names"
                if self.task is not None
                else f"no name for files; write for example {slug(self.name) or 'mood'}"
            )
            raise RequestError(f"--name {self.name!r}: {why}.")


class Answers(Protocol):
    """What an adapter answers on the splits of its task (:mod:`mtl.runs.answering`)."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Split → metric → value, as manifests have them."""

    @property
    def data(self) -> dict[str, Any]:
        """What was read: a manifest's section."""

    @property
    def training(self) -> dict[str, Any]:
        """What of that section the answers depend on."""

    def save(self, folder: Path) -> None:
        """Write them."""


Judge = Callable[["Network", "TaskSpec", "Backbone"], Answers]
"""Has an adapter with its head answer a task; given from above, where data are read."""


@dataclass(frozen=True)
class Kept:
    """What goes into the zoo.

    Attributes:
        method, settings, values: of ours; the settings as object and as the manifest records them.
        encoder: with the adapter, active.
        save: (folder, base id) writes the adapter's files.
        parameters: how many scalars it has, head excluded.
        head: as found.
        task, suite: see :func:`task_section`.
        notes: what is not known, and what was done.
        versions: of what wrote it.
        runhash: of what it is.
        command: the words that bring it here.
        data: further keys of the manifest's section ``data``.
    """

    method: Method
    settings: Any
    values: Mapping[str, Any]
    encoder: Any
    save: Callable[[Path, str], None]
    parameters: int
    head: FoundHead
    task: dict[str, Any]
    suite: str
    notes: list[str]
    versions: dict[str, str]
    runhash: str
    command: list[str]
    data: Mapping[str, Any] = field(default_factory=dict)


def keep(
    zoo: Zoo,
    backbone: Backbone,
    found: Kept,
    claims: Claims,
    judge: Judge | None = None,
    *,
    dry_run: bool = False,
) -> dict[str, str]:
    """Store it, with its answers where there is a ``judge``.

    Returns:
        Reference, digest, status (``pulled`` or ``there``) and bytes.

    Raises:
        RequestError: there is nothing to judge.
    """
    base, width = backbone.base, backbone.base.hidden_size
    method, head, runhash = found.method, found.head, found.runhash
    data: dict[str, Any] = {
        "fingerprint": "", "splits": {"train": ""}, "protocol": claims.protocol, "sizes": {},
        "notes": [],
    }  # fmt: skip
    answers = _judged(judge, backbone, found, claims) if judge is not None else None
    if answers is not None:
        data = answers.data
        runhash = sha256_json([runhash, data["fingerprint"], data["protocol"]])
    data = {**data, "notes": [*found.notes, *data["notes"]], **found.data}
    manifest = Manifest(
        kind="adapter",
        weights="adapters",
        base=base.to_dict(),
        task=found.task,
        suite=found.suite,
        method=method.name,
        method_settings=dict(found.values),
        run_settings={"max_train_samples": None, "head": head.design},
        seed=claims.seed,
        data=data,
        head={"design": head.design, "name": NAME if head.head is not None else None},
        placement=method.placement(found.settings, width) if method.placement else None,
        metrics=answers.metrics if answers is not None else {},
        training={
            **_UNKNOWN,
            "trainable_parameters": found.parameters,
            **(answers.training if answers is not None else {}),
        },
        versions=found.versions,
        parents=[],
        runhash=runhash,
        command=portable_command([word for word in found.command if word]),
        verified=None,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    name = found.task["name"]
    ref = zoo.location(base.slug, found.suite, name, method.name, claims.seed, runhash)
    if dry_run:
        return {"ref": ref, "digest": "", "status": "pulled", "bytes": "0"}
    there = {entry.ref for entry in zoo.entries()}
    with zoo.stage(ref) as target:
        found.save(target, base.id)
        if answers is not None:
            answers.save(target)
        if head.head is not None:
            heads.save_head(
                head.head, target, NAME, backbone.pristine.config,
                kind=head.kind, labels=head.labels, model_id=base.id,
            )  # fmt: skip
        entry = zoo.commit(target, ref, manifest)
    total = sum(item["bytes"] for item in entry.files.values())
    status = "there" if ref in there else "pulled"
    return {
        "ref": ref,
        "digest": entry.digest,
        "status": status,
        "bytes": str(total if status == "pulled" else 0),
    }


def _judged(judge: Judge, backbone: Backbone, found: Kept, claims: Claims) -> Answers:
    from mtl.backbone import Network
    from mtl.tasks import load_task

    if found.head.head is None:
        raise RequestError(
            f"it cannot be evaluated without a head. {found.head.note} Leave --evaluate out"
        )
    assert claims.task is not None  # the command line asks for it
    return judge(Network(found.encoder, found.head.head), load_task(claims.task), backbone)


def task_section(called: str, claims: Claims, found: FoundHead) -> tuple[dict[str, Any], str]:
    """The task section and the suite; ``called``: what the adapter is called where it is from.

    Raises:
        RequestError: the head has other outputs than the task that the user named.
    """
    if claims.task is None:
        name = claims.name or slug(called.replace("/", "-"))[:60].strip("-.")
        made: dict[str, Any] = {
            "id": f"{NAME}/{name}", "suite": NAME, "name": name, "kind": found.kind,
            "labels": list(found.labels) or None, "metrics": [], "headline": None,
            "num_outputs": (len(found.labels) or 1) if found.head is not None else None,
        }  # fmt: skip
        return made, NAME
    from mtl.tasks import load_task

    spec = load_task(claims.task)
    named = [label for label in found.labels if not _GENERIC.fullmatch(label)]
    if found.head is not None and (
        found.kind != spec.kind
        or max(len(found.labels), 1) != spec.num_outputs
        or (named and list(found.labels) != list(spec.labels))
    ):
        raise RequestError(
            f"its head answers {found.kind} with the labels {', '.join(found.labels) or '(none)'}; "
            f"the task {spec.id} is {spec.kind} with {', '.join(spec.labels) or '(none)'}, in this "
            "order. Name the task that it was trained on, or leave --task out"
        )
    section = {
        "id": spec.id, "suite": spec.suite, "name": spec.name, "kind": spec.kind,
        "labels": list(spec.labels), "metrics": list(spec.metrics), "headline": spec.headline,
        "num_outputs": spec.num_outputs, "spec": spec.portable(),
    }  # fmt: skip
    return section, spec.suite
