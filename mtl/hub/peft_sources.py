"""Adapters that ``peft`` trained, from a folder or the Hub, into the zoo as entries of ``lora``.

As with those of stock ``adapters`` (:mod:`mtl.hub.foreign`), the user names the encoder. What the
adapter changes becomes a LoRA (:mod:`mtl.hub.peft_convert`), its head one of ours where the designs
are the same (:mod:`mtl.hub.peft_head`); the manifest says what it was and what was lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.files import path_name, sha256_file, sha256_json, user_path
from mtl.hub.boundary import json_bytes, json_file
from mtl.hub.client import RepoName, parse_repo
from mtl.hub.foreign_files import FoundHead, at
from mtl.hub.keeping import NAME, Claims, Judge, Kept, keep, task_section
from mtl.hub.peft_config import PeftConfig, read_config
from mtl.hub.peft_convert import Bounds, Converted, convert
from mtl.hub.peft_head import peft_head
from mtl.hub.peft_tensors import PeftTensors, is_pooler, read_tensors, unused
from mtl.hub.remote import (
    Pulled,
    Remote,
    RemoteFile,
    adapter_folders,
    fetch,
    pull_folders,
    read_remote,
    remember,
)
from mtl.hub.stock import CONFIG_FILE
from mtl.typed import given
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.zoo import Zoo

HUB = "hub:"


def read_place(place: str) -> Remote:
    """``hub:user/name``, ``hub:user/name@revision``, or a folder on this disk.

    Raises:
        RequestError: no such folder or repository; one of entries of ours.
        RunError: network, Hub.
    """
    if place.startswith(HUB):
        remote = read_remote(parse_repo(place.removeprefix(HUB)))
        if remote.entries:
            raise RequestError(
                f"{remote.where} holds entries of mtl. Pull them as they are: "
                f"python -m mtl.zoo pull {remote.repo}{given('--zoo')}"
            )
        return remote
    folder = user_path(place, "--peft")
    if not folder.is_dir():
        raise RequestError(
            f"--peft {place}: there is no such folder. Name a folder that save_pretrained of peft "
            f"wrote, or a repository of the Hub as {HUB}user/name."
        )
    if not (folder / CONFIG_FILE).is_file():
        raise RequestError(f"--peft {place}: the folder holds no {CONFIG_FILE}, so no adapter.")
    files = {
        path.name: RemoteFile(path.stat().st_size) for path in folder.iterdir() if path.is_file()
    }
    marks = hashlib.sha256()
    for name in sorted(files):
        if name.startswith("adapter_"):
            marks.update(f"{name} {sha256_file(folder / name)}\n".encode())
    name = path_name(str(folder.absolute()))
    return Remote(RepoName(name), marks.hexdigest(), None, files, {}, folder.absolute())


def pull_peft(
    zoo: Zoo,
    place: str,
    keys: Sequence[str],
    claims: Claims,
    bounds: Bounds | None = None,
    judge: Judge | None = None,
    *,
    dry_run: bool = False,
) -> Pulled:
    """Put adapters of ``peft`` into the zoo, one entry per folder.

    Args:
        place: see :func:`read_place`.
        keys: folders of a repository; none for all.
        bounds: what a conversion may cost and lose.
        judge: has it answer the task that ``claims`` name.

    Raises:
        RequestError: no adapter there, a kind or a module that no LoRA of ours stands for, more
            rank or loss than ``bounds`` allow, pickled weights.
        ZooError: damaged files, or weights that do not fit config or encoder.
        RunError: network, Hub, disk.
    """
    from mtl.backbone import load_backbone

    remote = read_place(place)
    folders = adapter_folders(remote, keys)
    backbone = load_backbone(claims.model)

    def pull(folder: str) -> dict[str, Any]:
        made = _read(remote, folder, place, claims, bounds or Bounds(), backbone)
        entry = keep(zoo, backbone, made.kept, claims, judge, dry_run=dry_run)
        said = {key: entry[key] for key in ("ref", "digest", "status", "bytes")}
        return {**said, "says": made.says}

    found = pull_folders(remote, folders, pull)
    if place.startswith(HUB):
        remember(remote)
    return found


@dataclass(frozen=True)
class _Made:
    """What an adapter became, and a line on it."""

    kept: Kept
    says: str


def _read(
    remote: Remote, folder: str, place: str, claims: Claims, bounds: Bounds, backbone: Backbone
) -> _Made:
    from mtl.methods import attach, find_method
    from mtl.methods.method import make_settings, settings_dict

    stored = json_file(fetch(remote, at(folder, CONFIG_FILE), json_bytes()), "its config")
    config = read_config(stored)
    pristine = backbone.pristine
    tensors = read_tensors(remote, folder, config, pristine)
    head = peft_head(config, tensors, backbone)
    _check_trained(tensors)
    encoder = backbone.encoder()
    found = convert(config, tensors, pristine, encoder, bounds)
    method = find_method("lora")
    dropout = config.dropout if found.by == "mtl" else 0.0
    values = {
        "rank": found.rank, "alpha": found.alpha, "dropout": dropout, "modules": found.modules,
    }  # fmt: skip
    settings = make_settings("lora", method.settings, values)
    tuned = attach(encoder, method, settings, NAME)
    count = _fill(encoder, settings.modules, found)
    head = _for_task(head, claims)
    task, suite = task_section(f"{remote.repo.id} {folder}", claims, head)
    where = f"{HUB}{remote.repo.id}@{remote.revision}" if place.startswith(HUB) else place
    more = {"--task": claims.task, "--name": claims.name, "--protocol": claims.protocol}
    if bounds != Bounds():
        more |= {"--rank": str(bounds.rank), "--max-error": f"{bounds.error:g}"}
    if claims.seed:
        more["--seed"] = str(claims.seed)
    options = [word for key, value in more.items() if value for word in (key, value)]
    notes = _notes(remote, folder, place, config, found, tensors, head, claims, backbone)
    kept = Kept(
        method=method,
        settings=settings,
        values=settings_dict(settings),
        encoder=encoder,
        save=tuned.save,
        parameters=count,
        head=head,
        task=task,
        suite=suite,
        notes=notes,
        versions={"peft": config.version or "unknown"},
        runhash=sha256_json(
            [
                *("peft", stored, tensors.sha256, backbone.base.fingerprint),
                *(task["id"], claims.protocol, values),
            ]
        ),
        command=[
            *("python", "-m", "mtl.zoo", "pull", "--peft", where, "--model", claims.model),
            *options,
            folder,
        ],
        data={"converted": _record(config, found)},
    )
    says = [_conversion(config, found), _head_text(head), _base_text(config, backbone)]
    return _Made(kept, ". ".join(text[0].upper() + text[1:] for text in says if text))


def _check_trained(tensors: PeftTensors) -> None:
    """A pooler is read by heads alone; whatever else was trained is part of the function.

    Raises:
        RequestError: something else was.
    """
    more = {key: value for key, value in tensors.trained.items() if not is_pooler(key)}
    if more:
        raise RequestError(
            f"it trained {counted(len(more), 'tensor')} of the encoder itself ({unused(more)}), "
            "which a LoRA does not hold"
        )


def _fill(encoder: Any, modules: str, found: Converted) -> int:
    """Put the factors into the new adapter; how many numbers it has."""
    import torch

    from mtl.backbone.linear import linear_sites, lora_views, module_names

    count = 0
    with torch.no_grad():
        for site, linear in linear_sites(encoder, module_names(modules)).items():
            down, up, _ = lora_views(linear, NAME)
            down.copy_(found.sites[site].down)
            up.copy_(found.sites[site].up)
            count += down.numel() + up.numel()
    return count


def _for_task(head: FoundHead, claims: Claims) -> FoundHead:
    """The head as the task that the user named reads it: several labels of one row, or one."""
    if claims.task is None or head.head is None:
        return head
    from mtl.tasks import load_task

    kind = load_task(claims.task).kind
    return replace(head, kind=kind) if {kind, head.kind} <= _ALIKE else head


_ALIKE = {"classification", "multilabel"}
"""Kinds whose heads have the same weights: the file says nothing of which it is."""


def _record(config: PeftConfig, found: Converted) -> dict[str, Any]:
    return {
        "kind": config.kind,
        "values": dict(sorted(config.values.items())),
        "by": found.by,
        "rank": found.rank,
        "largest_error": found.error,
        "sites": {
            site: {"rank": rank, "error": error} for site, (rank, error) in found.errors.items()
        },
    }


def _conversion(config: PeftConfig, found: Converted) -> str:
    kind = "DORA" if config.values.get("use_dora") else config.kind
    return (
        f"{kind} as a LoRA of rank {found.rank} at {found.modules}, by {found.by}; relative error "
        f"of a module at most {found.error:g}"
    )


def _head_text(head: FoundHead) -> str:
    return f"head {head.design}" if head.head is not None else head.note.rstrip(".")


def _differs(config: PeftConfig, backbone: Backbone) -> str:
    """What the adapter says of its base, where that is not what the user's is called."""
    said, ours = config.base, backbone.base.id
    if said is None or said.rstrip("/").split("/")[-1].lower() == ours.split("/")[-1].lower():
        return ""
    return said


def _base_text(config: PeftConfig, backbone: Backbone) -> str:
    said = _differs(config, backbone)
    return said and (
        f"it says that it was trained on {said}, and the model is {backbone.base.id}: on other "
        "weights than its own it answers at random, and nothing here can tell"
    )


def _notes(
    remote: Remote,
    folder: str,
    place: str,
    config: PeftConfig,
    found: Converted,
    tensors: PeftTensors,
    head: FoundHead,
    claims: Claims,
    backbone: Backbone,
) -> list[str]:
    """What the entry is, and what it is not known to be."""
    if place.startswith(HUB):
        where = f"{remote.repo.id}, commit {remote.revision}"
    else:
        where = f"the folder {remote.repo.id}"
    where += f", folder {folder}" if folder else ""
    base = backbone.base.id
    said = _differs(config, backbone)
    notes = [
        f"Not trained here: pulled from {where}, written by peft {config.version}.",
        f"Converted: {_conversion(config, found)}.",
        "Unknown: training data, splits, run settings, seed, steps, results.",
        f"The encoder was named by whoever pulled it ({base}); the adapter says "
        f"{config.base or 'nothing of it'}" + (", which is another name." if said else "."),
    ]
    if config.targets is None:
        notes.append("Which modules it changes was read off its weights, not its config's pattern.")
    left = len(found.sites) - len(found.errors)
    if left:
        notes.append(f"{counted(left, 'module')} of some layers are unchanged: zero here.")
    if claims.task is not None or claims.protocol is not None:
        notes.append("Task and split protocol were named by whoever pulled it.")
    if head.head is not None and head.labels:
        notes.append("Its labels have no names: their order is taken for that of the task.")
    if any(map(is_pooler, tensors.trained)) and head.design != "two_layer":
        notes.append("It trained the pooler, too, which no source reads; that was left out.")
    if head.note:
        notes.append(head.note)
    return notes
