"""Adapters that stock ``adapters`` wrote, into the zoo: their weights, and what is known of them.

Such a repository says nothing of the encoder's weights, the data, the settings or the results. The
encoder is named by the user, and the adapter must fit it; the rest stays unknown, and the manifest
says so. Nothing of the repository's files is kept as it is: weights are read as tensors, and the
entry's files are written anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone import adapter_files
from mtl.backbone.arch import arch_of
from mtl.backbone.bounded import bounded
from mtl.errors import RequestError, ZooError
from mtl.files import sha256_json, write_json
from mtl.files import write_safetensors as write_tensors
from mtl.hub.boundary import json_bytes, json_file
from mtl.hub.foreign_files import FoundHead, at, read_head, read_weights
from mtl.hub.keeping import NAME, Claims, Judge, Kept, keep, task_section
from mtl.hub.peft_config import refuse_peft
from mtl.hub.recognise import recognise
from mtl.hub.remote import Pulled, Remote, adapter_folders, fetch, pull_folders, remember
from mtl.words import printable
from mtl.zoo import admit

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.zoo import Zoo


def pull_foreign(
    zoo: Zoo,
    remote: Remote,
    keys: Sequence[str],
    claims: Claims,
    judge: Judge | None = None,
    *,
    dry_run: bool = False,
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

    def pull(folder: str) -> dict[str, Any]:
        entry = _one(zoo, remote, folder, claims, backbone, judge, dry_run)
        return {key: entry[key] for key in ("ref", "digest", "status", "bytes")}

    found = pull_folders(remote, folders, pull)
    remember(remote)
    return found


def _one(
    zoo: Zoo,
    remote: Remote,
    folder: str,
    claims: Claims,
    backbone: Backbone,
    judge: Judge | None,
    dry_run: bool,
) -> dict[str, str]:
    from mtl.methods import find_method, load
    from mtl.methods.method import make_settings

    stored = json_file(
        fetch(remote, at(folder, adapter_files.CONFIG_FILE), json_bytes()), "its config"
    )
    refuse_peft(stored, remote)
    _check_encoder(stored, backbone)
    width = backbone.base.hidden_size
    name, values = recognise(
        stored.get("config"), width, arch_of(backbone.pristine.config).lora_names
    )
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
    task, suite = task_section(f"{remote.repo.id} {folder}", claims, found)
    named = f"{remote.repo.id}@{remote.revision}"
    kept = Kept(
        method=method,
        settings=settings,
        values=values,
        encoder=encoder,
        save=tuned.save,
        parameters=count,
        head=found,
        task=task,
        suite=suite,
        notes=_notes(remote, folder, stored, claims, found, backbone.base.id),
        versions={"adapters": _text(stored.get("version")) or "unknown"},
        runhash=sha256_json([remote.repo.id, folder, used, backbone.base.fingerprint, task["id"]]),
        command=["python", "-m", "mtl.zoo", "pull", named, "--model", claims.model, folder],
    )
    return keep(zoo, backbone, kept, claims, judge, dry_run=dry_run)


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
