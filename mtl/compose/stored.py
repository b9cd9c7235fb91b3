"""A stored composition back as a model, from its entry alone."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from mtl.compose.base import COMPOSITIONS
from mtl.compose.stage_two import build_composition
from mtl.engine import RunSettings
from mtl.errors import RequestError, ZooError
from mtl.methods.base import make_settings
from mtl.tasks import load_task
from mtl.train.load import check_base
from mtl.train.plan import Built, RunPlan
from mtl.train.workspace import load_task_data

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.tasks import TaskData
    from mtl.train import Workspace
    from mtl.zoo import Entry, Zoo


def data_of_entry(entry: Entry, workspace: Workspace) -> TaskData:
    """The data an entry was trained and tested on, read again.

    Raises:
        RequestError: the task is not known any more, or its data are others than then.
    """
    manifest = entry.manifest
    spec = load_task(manifest.task["id"], manifest.suite)
    limits = [
        int(manifest.run_settings.get(name) or 0)
        for name in ("max_train_samples", "max_eval_samples")
    ]
    data = load_task_data(spec, workspace, str(manifest.data["protocol"]), *limits)
    if data.fingerprint != manifest.data["fingerprint"]:
        raise RequestError(
            f"The data of {spec.id} are not those that {entry.ref} was made with (fingerprint "
            f"{data.fingerprint[:12]}…, then {manifest.data['fingerprint'][:12]}…). Restore them, "
            "or give the place they were read from with --data-root."
        )
    return data


def parents_of(entry: Entry, zoo: Zoo) -> list[Entry]:
    """The sources of a composition, in its order.

    Raises:
        RequestError: it is no composition.
        ZooError: a source is not in the zoo any more.
    """
    if entry.manifest.kind != "composition":
        raise RequestError(
            f"{entry.ref} is an {entry.manifest.kind} of one task; only compositions have sources. "
            "mtl.zoo ls --kind composition lists them."
        )
    by_digest = {item.digest: item for item in zoo.entries(kind="adapter")}
    found = []
    for parent in entry.manifest.parents:
        if parent["digest"] not in by_digest:
            raise ZooError(
                f"{entry.ref} needs its source {parent['ref']} (digest {parent['digest'][:12]}…), "
                f"which is not in the zoo {zoo.root}. Restore it, or compose again: "
                f"{entry.manifest.command}"
            )
        found.append(by_digest[parent["digest"]])
    return found


def load_composition(entry: Entry, zoo: Zoo, backbone: Backbone, data: TaskData) -> Built:
    """The composition with its sources, weights and head, as it was stored.

    Args:
        data: as :func:`data_of_entry` gives them.

    Raises:
        RequestError: another base, or no composition.
        ZooError: damaged files, sources that are gone.
    """
    manifest = entry.manifest
    check_base(entry, backbone.base)
    sources = parents_of(entry, zoo)
    zoo.load_check(entry)
    composition = COMPOSITIONS.get(manifest.method)
    known = {item.name for item in fields(RunSettings)}
    run = {key: value for key, value in manifest.run_settings.items() if key in known}
    plan = RunPlan(
        kind="composition",
        spec=data.spec,
        suite=manifest.suite,
        data=data,
        backbone=backbone,
        method=manifest.method,
        method_settings=make_settings(
            manifest.method, composition.settings, dict(manifest.method_settings)
        ),
        settings=RunSettings(**run),
        seed=manifest.seed,
        build=lambda plan, folder: build_composition(plan, folder, sources, zoo),
        parents=tuple(manifest.parents),
    )
    return plan.build(plan, entry.folder)
