"""Entries of the zoo back into encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl.backbone import Network, load_head
from mtl.backbone.bounded import bounded
from mtl.backbone.injection import freeze
from mtl.engine import Attachment, RunSettings
from mtl.errors import RequestError
from mtl.methods import find_method, load
from mtl.methods.base import make_settings
from mtl.tasks import load_task
from mtl.train.workspace import load_task_data

if TYPE_CHECKING:
    from mtl.backbone import Backbone, Base
    from mtl.tasks import TaskData
    from mtl.train.workspace import Workspace
    from mtl.zoo import Entry, Zoo


MAX_BATCH = 4096
"""A stranger's entry does not make a pass of more examples than this."""


def check_base(entry: Entry, base: Base) -> None:
    """Refuse an entry of another base: its adapter would read features it never saw.

    Raises:
        RequestError: says both sides.
    """
    stored = entry.manifest.base
    if stored["fingerprint"] == base.fingerprint:
        return
    raise RequestError(
        f"Cannot use {entry.ref} here: it was trained on {stored['id']!r} (weights "
        f"{stored['fingerprint'][:8]}, {stored['type']}, hidden size {stored['hidden_size']}, "
        f"{stored['layers']} layers), this run uses {base.id!r} (weights {base.fingerprint[:8]}, "
        f"{base.type}, hidden size {base.hidden_size}, {base.layers} layers). List what fits with "
        f"mtl.zoo ls --base {base.fingerprint[:8]}, or pass the model of the entry with --model."
    )


def stored_settings(entry: Entry) -> RunSettings:
    """The run settings that an entry was made with, as its manifest tells them.

    Raises:
        RequestError: they cannot be used.
    """
    values = entry.manifest.run_settings
    known = {key: values[key] for key in RunSettings.__dataclass_fields__ if key in values}
    try:
        return RunSettings(**known)
    except TypeError as error:
        raise RequestError(f"{entry.ref}: its run settings cannot be used: {error}.") from error


def answer_batch_size(entry: Entry) -> int:
    """Examples per forward pass with which an entry's answers were made.

    Entries of before it was recorded, and numbers that make no sense, give the default.
    """
    told = entry.manifest.training.get("eval_batch_size")
    if isinstance(told, int) and not isinstance(told, bool) and 1 <= told <= MAX_BATCH:
        return told
    return RunSettings().eval_batch_size


def data_of_entry(entry: Entry, workspace: Workspace) -> TaskData:
    """The data an entry was trained and tested on, read again.

    Raises:
        RequestError: the task is not known any more, or its data are others than then.
    """
    manifest = entry.manifest
    spec = load_task(manifest.task["id"], manifest.suite)
    settings = stored_settings(entry)
    data = load_task_data(spec, workspace, str(manifest.data["protocol"]), settings)
    if data.fingerprint != manifest.data["fingerprint"]:
        raise RequestError(
            f"The data of {spec.id} are not those that {entry.ref} was made with (fingerprint "
            f"{data.fingerprint[:12]}…, then {manifest.data['fingerprint'][:12]}…). Restore them, "
            "or give the place they were read from with --data-root."
        )
    return data


def load_adapter_entry(encoder: Any, entry: Entry, zoo: Zoo, name: str) -> None:
    """Load a stage-one entry into ``encoder`` as the frozen source ``name``.

    The entry's files are checked against their hashes first.

    Raises:
        ZooError: damaged files, or weights that do not fit.
        RequestError: a method this version does not know.
    """
    zoo.load_check(entry)
    manifest = entry.manifest
    method = find_method(manifest.method)
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    with bounded(entry.ref):
        if method.load_source is not None:
            method.load_source(encoder, settings, name, entry.folder)
            return
        load(encoder, method, settings, name, entry.folder)
        if method.as_source is not None:
            method.as_source(encoder, settings, name)


def load_network(entry: Entry, zoo: Zoo, backbone: Backbone) -> Attachment:
    """A stage-one entry as a frozen model with its head: ``.logits(batch)`` answers as stored.

    The entry's files are checked against their hashes first.

    Raises:
        RequestError: an entry of another base, a composition, or an unknown method.
        ZooError: damaged files, or weights that do not fit.
    """
    manifest = entry.manifest
    if manifest.kind != "adapter":
        raise RequestError(f"{entry.ref} is a {manifest.kind}, not the adapter of a single task.")
    check_base(entry, backbone.base)
    zoo.load_check(entry)
    method = find_method(manifest.method)
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    encoder = backbone.encoder()
    with bounded(entry.ref):
        tuned = load(encoder, method, settings, "loaded", entry.folder, active=True)
        head = load_head(entry.folder, encoder.config, pooler=backbone.pooler)
    freeze(head)
    return Attachment(Network(encoder, head).eval(), {}, [], caches=tuned.caches)
