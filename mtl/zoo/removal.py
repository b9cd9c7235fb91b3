"""Removing entries: refused while a composition that stays needs them, atomic otherwise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import RequestError, ZooError
from mtl.files import sync_folder
from mtl.zoo.names import MANIFEST
from mtl.zoo.staging import cannot, guarded, staging

if TYPE_CHECKING:
    from mtl.zoo.reader import ZooReader


def remove_all(zoo: ZooReader, keys: Sequence[str], force: bool) -> list[str]:
    """See :meth:`mtl.zoo.store.Zoo.remove_all`."""
    _find(zoo, keys)  # a key that names nothing needs no lock, nor a zoo that can be written
    with guarded(zoo.root, "remove from the zoo"):
        return _remove_found(zoo, _find(zoo, keys), force)


def _find(zoo: ZooReader, keys: Sequence[str]) -> dict[str, str | None]:
    """Reference → digest (None where it cannot be read) of the entries that ``keys`` name."""
    doomed: dict[str, str | None] = {}
    for key in keys:
        try:
            entry = zoo.get(key)
            doomed[entry.ref] = entry.digest
        except (ZooError, RequestError):
            doomed[_damaged(zoo, key)] = None
    return doomed


def _remove_found(zoo: ZooReader, doomed: dict[str, str | None], force: bool) -> list[str]:
    users = {
        ref: {user.ref for user in (zoo.users(digest) if digest else zoo.users("", ref))}
        for ref, digest in doomed.items()
    }
    blocked = [
        f"{ref} is needed by {', '.join(sorted(staying))}"
        for ref in doomed
        if (staying := users[ref] - doomed.keys())
    ]
    if blocked and not force:
        raise RequestError(
            f"Nothing was removed: {'; '.join(blocked)}. Remove those compositions as well "
            "(in the same command), or pass --force: they can then no longer be loaded."
        )
    order = _users_first(users)
    for ref in order:
        _remove(zoo.path(ref), zoo.root, ref)
    return order


def _users_first(users: dict[str, set[str]]) -> list[str]:
    """Compositions before their sources, so that a kill in between leaves none without one."""
    order: list[str] = []
    while left := [ref for ref in users if ref not in order]:
        free = [ref for ref in left if not users[ref] & (set(left) - {ref})]
        order += free or left  # a circle exists only in a zoo that somebody made up
    return order


def _damaged(zoo: ZooReader, key: str) -> str:
    """The reference of an entry whose manifest cannot be read; else what ``zoo.get`` says."""
    try:
        folder = zoo.path(key.strip("/"))
        if folder != zoo.root and (folder / MANIFEST).is_file():
            return zoo.ref(folder)
    except (RequestError, ZooError):
        pass
    zoo.entries()
    named = [p.path for p in zoo.problems if p.kind == "manifest" and _ends(p.path, key)]
    if len(named) == 1:
        return named[0]
    zoo.get(key)
    raise RequestError(f"There is no entry {key!r} in the zoo {zoo.root}.")


def _ends(ref: str, key: str) -> bool:
    return f"/{ref}".endswith(f"/{key.strip('/')}")


def _remove(target: Path, root: Path, ref: str) -> None:
    # Moved into a locked staging folder first: readers see the whole entry or none, and a kill
    # leaves a temporary that fsck knows.
    with staging(target, root) as aside:
        try:
            os.rename(target, aside / target.name)
            sync_folder(target.parent)
        except FileNotFoundError:
            return  # another process removed it
        except OSError as error:
            raise cannot(f"remove {ref}", error) from error
