"""``mtl.load``: an entry of the zoo, or of the Hub, that answers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtl.errors import RequestError, did_you_mean
from mtl.face.places import root_of
from mtl.predict.many import Models, open_models
from mtl.predict.model import Model, open_model
from mtl.runs.workspace import open_workspace
from mtl.zoo import Entry, Zoo, open_zoo
from mtl.zoo.names import MANIFEST
from mtl.zoo.packing import SUFFIX

PARTS = 5
"""Names between the root of a zoo and an entry: base, suite, task, method, run."""
HUB = "hub:"
"""What a name begins with that is a repository of the Hub: ``hub:user/name``."""


def load(
    entry: Entry | str,
    *,
    model: str | None = None,
    zoo: Zoo | str | Path | None = None,
    data_root: str | Path | None = None,
    tasks: Sequence[str] = (),
    precision: str | None = None,
) -> Model:
    """Load a stored adapter, composition or joint model.

    Examples:
        >>> import mtl
        >>> model = mtl.load("entail/scalearn/seed0")  # doctest: +SKIP
        >>> model.predict([("every dog sees a cat", "some dog sees a cat")])  # doctest: +SKIP
        ['entailment']

    Args:
        entry: an entry (what :func:`mtl.train_adapter` and :func:`mtl.compose_adapters` return);
            its reference, the last parts of it, or the start of its digest; a folder (with a
            path separator in its name) that is an entry, or a zoo whose only one it is; or
            ``hub:user/name[@revision]``, whose only entry that nothing else there needs is pulled
            into the zoo, with its sources (``hub:user/name#ENTRY`` where there are several).
        model: the base, where the entry does not say what can be found here: Hub name or folder.
        zoo: the zoo, or its folder; None: that of ``entry``, else ``MTL_ZOO``, else
            ``adapters_zoo`` here.
        data_root: local mirror of Hub datasets, for :meth:`Model.evaluate`.
        tasks: files of tasks of your own, for the same.
        precision: ``fp32`` or ``bf16`` to answer in; None: what the entry's stored answers are in.

    Raises:
        RequestError: no such entry, or several; another base than the entry's; another precision.
        ZooError: files of the entry are damaged.
        RunError: network, Hub, disk.
    """
    if precision not in {None, "fp32", "bf16"}:
        guess = did_you_mean(str(precision), ["fp32", "bf16"])
        raise RequestError(f"precision={precision!r} must be 'fp32' or 'bf16'{guess}.")
    workspace = open_workspace(zoo=root_of(zoo, entry), data_root=data_root, tasks=tasks)
    if isinstance(entry, str):
        if entry.startswith(HUB):
            entry = _pulled(workspace.zoo, entry.removeprefix(HUB))
        elif entry.endswith(SUFFIX):
            raise _packed(entry, workspace.zoo)
        elif zoo is None and _is_folder(entry):
            found = _of_folder(Path(entry))
            workspace = replace(workspace, zoo=found[1])
            entry = found[0]
        else:
            entry = workspace.zoo.get(entry)
    return open_model(entry, workspace, model, precision=precision or "")


def load_many(
    entries: Sequence[Entry | str],
    *,
    model: str | None = None,
    zoo: Zoo | str | Path | None = None,
    data_root: str | Path | None = None,
    tasks: Sequence[str] = (),
) -> Models:
    """Load several entries of one zoo side by side, on one encoder where they can be.

    Examples:
        >>> import mtl
        >>> models = mtl.load_many(  # doctest: +SKIP
        ...     ["entail/scalearn/seed0", "mood/pfeiffer/seed0"]
        ... )
        >>> models.predict(
        ...     {
        ...         "entail/scalearn/seed0": [("every dog sees a cat", "some dog sees a cat")],
        ...         "mood/pfeiffer/seed0": ["the cat is happy"],
        ...     }
        ... )  # doctest: +SKIP
        {'entail/scalearn/seed0': ['entailment'], 'mood/pfeiffer/seed0': ['happy']}

    Args:
        entries: entries, references, last parts of them, or starts of their digests.
        model: the base of all of them; None: as each says.
        zoo: as :func:`mtl.load` takes it.
        data_root: likewise.
        tasks: likewise.

    Raises:
        RequestError: no entry; none of a name, or several; another base than ``model``.
        ZooError: files of an entry are damaged.
    """
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise RequestError(
            f"load_many takes a list of entries, not {entries!r}; mtl.load takes one."
        )
    first = entries[0] if entries else ""
    workspace = open_workspace(zoo=root_of(zoo, first), data_root=data_root, tasks=tasks)
    return open_models(entries, workspace, model)


def _packed(name: str, zoo: Zoo) -> RequestError:
    into = f" --zoo {shlex.quote(str(zoo.root))}"
    return RequestError(
        f"{name} is a packed zoo, which is loaded after it was unpacked and checked: python -m "
        f"mtl.zoo unpack {shlex.quote(name)}{into}   # then mtl.load a reference that it lists"
    )


def _is_folder(name: str) -> bool:
    return Path(name).is_dir() and (os.sep in name or name.startswith("."))


def _of_folder(folder: Path) -> tuple[Entry, Zoo]:
    """The entry that lies in ``folder``, or the only one of the zoo there that nothing needs.

    Raises:
        RequestError: there is none, or several.
    """
    if (folder / MANIFEST).is_file():
        zoo = open_zoo(folder.resolve().parents[PARTS - 1])
        return zoo.get(folder.resolve().relative_to(zoo.root.resolve()).as_posix()), zoo
    zoo = open_zoo(folder)
    return _only(zoo.entries(), str(folder)), zoo


def _only(entries: Sequence[Entry], where: str) -> Entry:
    """The one entry that is a source of none of the others."""
    needed = {parent["digest"] for entry in entries for parent in entry.manifest.parents}
    own = [entry for entry in entries if entry.digest not in needed]
    if len(own) != 1:
        listed = f" ({', '.join(entry.ref for entry in own)})" if own else ""
        raise RequestError(
            f"{where} holds {len(own)} entries that can be loaded{listed}: name one."
        )
    return own[0]


def _pulled(zoo: Zoo, text: str) -> Entry:
    from mtl.hub import parse_repo, pull

    name, _, key = text.partition("#")
    pulled = pull(zoo, parse_repo(name), [key] if key else ())
    entries = [zoo.get(row["ref"]) for row in pulled.entries]
    return _only(entries, f"{HUB}{name} (as {HUB}{name}#ENTRY)")
