"""``--init-from``: an adapter that begins as one of the zoo, and is trained on from there.

Intermediate-task transfer (Poth et al. 2021, What to Pre-Train on?, arXiv:2104.08247): the weights
of the adapter start as another task's, the head is new, and everything learns. It is the plain
alternative to composing: one source, changed for the target, where stage two keeps several as they
are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.identity import base_differences, same_base
from mtl.errors import RequestError, did_you_mean
from mtl.files import canonical_json
from mtl.methods.method import METHODS, load, settings_dict
from mtl.runs.sections import file_name
from mtl.zoo.entry import drawn, is_cut
from mtl.zoo.place import zoo_option

if TYPE_CHECKING:
    from mtl.data import TaskData
    from mtl.engine import RunSettings
    from mtl.methods.tuned import Tuned
    from mtl.runs.run import Built, Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry

AT = "@"
DIGITS = 12
"""Digits of an entry's digest in a resolved setting: ``glue/mnli/pfeiffer/seed0-ab12cd34@DIGEST``,
a reference below the base's folder."""
MAY_DIFFER = ("train_head", "dropout")
"""Settings of a method that say how it learns, and not what its tensors are."""
STORED_OTHERWISE = {
    **dict.fromkeys(("adamix", "madakron-full", "madakron-partial"), "its experts are merged"),
    **dict.fromkeys(("adalora", "sora"), "the ranks that were dropped are not in it"),
    "propetl": "of its masks' scores only a bit each is in it",
    "diff-pruning": "a sum of base and difference, without the gates, is in it",
    "vera": "the random matrices that its vectors belong to are in it, too",
}
"""Methods that cannot begin as a stored one, as something else is stored than trained, and what."""


def resolve_init(
    settings: RunSettings,
    method: str,
    method_settings: Any,
    data: TaskData,
    base: Mapping[str, Any],
    workspace: Workspace,
) -> tuple[RunSettings, Entry | None]:
    """The settings with ``init_from`` as reference and digest of an entry, and that entry.

    Args:
        base: that of the run, as a manifest has it.

    Raises:
        RequestError: no such entry, or one that this run cannot begin as; says why.
    """
    asked = settings.init_from
    if not asked:
        return settings, None
    entry = _entry(asked, method, base, workspace)
    if why := _unfit(entry, method, method_settings, data, base):
        raise RequestError(f"--init-from {asked}: {entry.ref} {why}.")
    below = entry.ref.partition("/")[2]
    return replace(settings, init_from=f"{below}{AT}{entry.digest[:DIGITS]}"), entry


def _entry(asked: str, method: str, base: Mapping[str, Any], workspace: Workspace) -> Entry:
    zoo = workspace.zoo
    _, at, digest = asked.rpartition(AT)
    if at:
        return zoo.get(digest)
    # tasks first: "cb" may be how the digest of some entry begins
    found = [
        entry
        for entry in zoo.entries(kind="adapter", task=asked, method=method, seed=0)
        if same_base(entry.manifest.base, base)
    ]
    found = drawn(found)
    found = [entry for entry in found if not is_cut(entry)] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestError(
            f"--init-from {asked} may mean any of {', '.join(e.ref for e in found)}: name one."
        )
    try:
        return zoo.get(asked)
    except RequestError as error:
        tasks = {entry.manifest.task["id"] for entry in zoo.entries(kind="adapter", method=method)}
        raise RequestError(
            f"--init-from {asked}: the zoo {zoo.root} holds no {method} adapter of a task of this "
            f"name with seed 0 on this base, and no entry of this name. Name a task, or an entry "
            f"that 'python -m mtl.zoo ls{zoo_option(zoo.root)}' lists."
            f"{did_you_mean(asked, tasks)}"
        ) from error


def _unfit(
    entry: Entry, method: str, method_settings: Any, data: TaskData, base: Mapping[str, Any]
) -> str:
    """Why a run of ``method`` on ``data`` cannot begin as ``entry``; "" where it can."""
    manifest = entry.manifest
    if manifest.kind != "adapter":
        return f"is of kind {manifest.kind}, and only an adapter of one task can be begun with"
    if manifest.method != method:
        return (
            f"is of method {manifest.method}, this run of {method}: give --method {manifest.method}"
        )
    if method in STORED_OTHERWISE:
        return (
            f"cannot be trained on: {STORED_OTHERWISE[method]}, so that {method} cannot begin as "
            "a stored one"
        )
    if not same_base(manifest.base, base):
        return f"is of another base: {'; '.join(base_differences(manifest.base, base))}"
    # as JSON has them, which knows no tuples
    ours = json.loads(canonical_json(settings_dict(method_settings)))
    theirs = dict(manifest.method_settings)
    apart = [
        f"{key}={theirs.get(key, 'default')} and not {ours.get(key, 'default')}"
        for key in sorted(ours.keys() | theirs.keys())
        if key not in MAY_DIFFER and ours.get(key) != theirs.get(key)
    ]
    if apart:
        return (
            f"was trained with other settings of {method} ({', '.join(apart)}): give those with "
            "--set"
        )
    rows = manifest.data["splits"].get("train")
    if manifest.task["id"] == data.spec.id and rows != data.fingerprints["train"]:
        return (
            f"was trained on other rows of {data.spec.id} than this run, so that its result would "
            "not be one of these rows"
        )
    return ""


def begun_as(
    entry: Entry | None,
    build: Callable[..., Built],
    workspace: Workspace,
) -> Callable[[Run, Path | None], Built]:
    """``build`` of runs whose new adapters begin as ``entry``; as they are drawn without one."""
    return partial(build, begin=None if entry is None else partial(_begin, entry, workspace))


def _begin(entry: Entry, workspace: Workspace, run: Run, encoder: Any, tuned: Tuned) -> None:
    """Give the trained parameters of ``tuned`` in ``encoder`` the values that ``entry`` has.

    Raises:
        RequestError: its tensors are others.
        ZooError: its files are damaged.
    """
    import torch

    zoo = workspace.zoo
    zoo.load_check(entry)
    other = run.backbone.encoder()
    name = file_name(run.spec.id)
    with zoo.reading(entry):
        load(other, METHODS.get(run.method), run.method_settings, name, entry.folder, active=True)
    theirs = dict(other.named_parameters())
    trained = {id(p) for group in tuned.groups for p in group.parameters.values()}
    ours = {key: p for key, p in encoder.named_parameters() if id(p) in trained}
    unlike = [k for k, p in ours.items() if k not in theirs or theirs[k].shape != p.shape]
    if unlike or len(ours) < len(trained):
        raise RequestError(
            f"--init-from {entry.ref}: its {run.method} adapter is stored in other tensors than "
            f"one that is trained has{f' ({unlike[0]})' if unlike else ''}, so that this method "
            "cannot begin as a stored one. Leave --init-from out."
        )
    with torch.no_grad():
        for key, parameter in ours.items():
            parameter.copy_(theirs[key])
