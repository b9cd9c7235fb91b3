"""Adapters that stock ``adapters`` wrote, into the zoo: their weights, and what is known of them.

Such a repository says nothing of the encoder's weights, the data, the settings or the results. The
encoder is named by the user, and the adapter must fit it; the rest stays unknown, and the manifest
says so. Nothing of the repository's files is kept as it is: weights are read as tensors, and the
entry's files are written anew.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone import adapter_files, heads
from mtl.backbone.bounded import bounded
from mtl.errors import MtlError, RequestError, ZooError
from mtl.files import sha256_json, slug, write_json
from mtl.files import write_safetensors as write_tensors
from mtl.hub.boundary import json_bytes, json_file
from mtl.hub.foreign_files import FoundHead, at, read_head, read_weights
from mtl.hub.recognise import recognise
from mtl.hub.remote import Pulled, Remote, adapter_folders, fetch, remember
from mtl.words import printable
from mtl.zoo import Manifest, admit
from mtl.zoo.machine import portable_command

if TYPE_CHECKING:
    from mtl.backbone import Backbone
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
    """What the user knows of a foreign adapter and the repository does not say.

    Attributes:
        model: the encoder that it was trained on.
        task: id or name of the task; None makes one up from the repository's name.
        protocol: the split protocol of its training; compositions ask for it.
        seed: recorded as its seed.
        allow_bin: read ``.bin`` files, tensors only, where there are no safetensors.
    """

    model: str
    task: str | None = None
    protocol: str | None = None
    seed: int = 0
    allow_bin: bool = False


def pull_foreign(
    zoo: Zoo, remote: Remote, keys: Sequence[str], claims: Claims, *, dry_run: bool = False
) -> Pulled:
    """Put adapters of stock ``adapters`` into the zoo, one entry per folder.

    Raises:
        RequestError: no adapter there, a method that we do not have, another encoder, ``.bin``
            files without ``allow_bin``.
        ZooError: damaged files, or weights that do not fit the encoder.
        RunError: network, Hub, disk.
    """
    from mtl.backbone import load_backbone

    folders = adapter_folders(remote, keys)
    backbone = load_backbone(claims.model)
    entries, size = [], 0
    for folder in folders:
        doing = f"{remote.where}/{folder}".rstrip("/")
        try:
            entry = _one(zoo, remote, folder, claims, backbone, dry_run)
        except MtlError as error:
            text = str(error).rstrip(".")
            raise type(error)(f"Cannot pull {doing} into the zoo: {text}.") from error
        entries.append({key: entry[key] for key in ("ref", "digest", "status")})
        size += int(entry["bytes"])
    remember(remote)
    return Pulled(remote.repo.id, remote.revision, entries, size)


def _one(
    zoo: Zoo, remote: Remote, folder: str, claims: Claims, backbone: Backbone, dry_run: bool
) -> dict[str, str]:
    from mtl.methods import find_method, load
    from mtl.methods.method import make_settings

    stored = json_file(
        fetch(remote, at(folder, adapter_files.CONFIG_FILE), json_bytes()), "its config"
    )
    _check_encoder(stored, backbone)
    width = backbone.base.hidden_size
    name, values = recognise(stored.get("config"), width)
    method = find_method(name)
    settings = make_settings(name, method.settings, values)
    with tempfile.TemporaryDirectory(prefix="mtl-foreign-") as scratch:
        source = Path(scratch)
        tensors, used = read_weights(remote, folder, adapter_files.WEIGHTS_FILE, claims.allow_bin)
        write_tensors(source / adapter_files.WEIGHTS_FILE, tensors)
        write_json(source / adapter_files.CONFIG_FILE, stored)
        admit(source, "the adapter")
        old = stored.get("name")
        config = {"config": {}, "hidden_size": width, "name": old if isinstance(old, str) else NAME}
        write_json(source / adapter_files.CONFIG_FILE, config)
        encoder = backbone.encoder()
        with bounded("the adapter"):
            tuned = load(encoder, method, settings, NAME, source, active=True)
        count = sum(p.numel() for p in _parameters(encoder))
    found = read_head(remote, folder, claims.allow_bin, backbone)
    task, suite = _task(remote, folder, claims, found)
    versions = {"adapters": _text(stored.get("version")) or "unknown"}
    runhash = sha256_json([remote.repo.id, folder, used, backbone.base.fingerprint, task["id"]])
    named = f"{remote.repo.id}@{remote.revision}"
    words = ["python", "-m", "mtl.zoo", "pull", named, "--model", claims.model, folder]
    command = portable_command([word for word in words if word])
    manifest = Manifest(
        kind="adapter",
        weights="adapters",
        base=backbone.base.to_dict(),
        task=task,
        suite=suite,
        method=name,
        method_settings=values,
        run_settings={"max_train_samples": None, "head": found.design},
        seed=claims.seed,
        data={
            "fingerprint": "",
            "splits": {"train": ""},
            "protocol": claims.protocol,
            "sizes": {},
            "notes": _notes(remote, folder, stored, claims, found, backbone.base.id),
        },
        head={"design": found.design, "name": NAME if found.head else None},
        placement=method.placement(settings, width) if method.placement else None,
        metrics={},
        training={**_UNKNOWN, "trainable_parameters": count},
        versions=versions,
        parents=[],
        runhash=runhash,
        command=command,
        verified=None,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    ref = zoo.location(backbone.base.slug, suite, task["name"], name, claims.seed, runhash)
    if dry_run:
        return {"ref": ref, "digest": "", "status": "pulled", "bytes": "0"}
    there = {entry.ref for entry in zoo.entries()}
    with zoo.stage(ref) as target:
        tuned.save(target, backbone.base.id)
        if found.head is not None:
            heads.save_head(
                found.head, target, NAME, encoder.config,
                kind=found.kind, labels=found.labels, model_id=backbone.base.id,
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


def _text(value: Any) -> str | None:
    return printable(value)[:100] if isinstance(value, str) else None


def _parameters(encoder: Any) -> list[Any]:
    from mtl.backbone.injection import adapter_parameters

    return list(adapter_parameters(encoder, NAME).values())


def _check_encoder(stored: Any, backbone: Backbone) -> None:
    base = backbone.base
    if not isinstance(stored, Mapping):
        raise ZooError("its adapter_config.json is no object")
    for key, ours in (("hidden_size", base.hidden_size), ("model_type", base.type)):
        if key in stored and stored[key] != ours:
            raise RequestError(
                f"it was trained on {printable(stored.get('model_name'))[:80]!r}, whose {key} is "
                f"{printable(stored[key])[:40]}; {base.id!r} has {ours}. Name that model with "
                "--model"
            )


def _task(
    remote: Remote, folder: str, claims: Claims, found: FoundHead
) -> tuple[dict[str, Any], str]:
    """The task section and the suite.

    Raises:
        RequestError: the head has other outputs than the task that the user named.
    """
    if claims.task is None:
        name = slug(f"{remote.repo.id} {folder}".replace("/", "-"))[:60].strip("-.")
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


def _notes(
    remote: Remote,
    folder: str,
    stored: Mapping[str, Any],
    claims: Claims,
    found: FoundHead,
    base: str,
) -> list[str]:
    """What the entry is not known to be; ``base`` is the id of the encoder."""
    place = f"{remote.repo.id}, commit {remote.revision}" + (f", folder {folder}" if folder else "")
    said = _text(stored.get("model_name"))
    notes = [
        f"Not trained here: pulled from {place}, written by {_text(stored.get('version'))}.",
        "Unknown: training data, splits, run settings, seed, steps, results.",
        f"The encoder was named by whoever pulled it ({base}); the repository says {said}.",
    ]
    if claims.task is not None or claims.protocol is not None:
        notes.append("Task and split protocol were named by whoever pulled it.")
    if found.note:
        notes.append(found.note)
    return notes
