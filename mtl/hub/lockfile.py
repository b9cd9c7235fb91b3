"""``mtl.lock``: which entries, with which digests, from which commit of which repository.

::

    {"schema_version": 1,
     "entries": [{"ref": …, "digest": …, "repository": "user/name", "revision": "<40 hex>"}, …]}

``repository`` and ``revision`` are null for an entry that no repository was named for: such a lock
can be compared with a zoo, and restored only where the zoo has the entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from mtl.errors import RequestError, ZooError
from mtl.files import write_json
from mtl.hub.boundary import json_file
from mtl.hub.client import RepoName, parse_repo
from mtl.hub.remote import Remote, read_remote
from mtl.typed import given
from mtl.words import counted, printable
from mtl.zoo.models import Closed, Digest, List, Model, SafePath, by, check
from mtl.zoo.names import MANIFEST
from mtl.zoo.place import zoo_option

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo

FILE = "mtl.lock"
VERSION = 1


def _repository(text: str) -> None:
    if parse_repo(text).revision:
        raise RequestError(f"the revision does not belong into the name {text!r}")


class _Row(Closed):
    ref: SafePath
    digest: Digest
    repository: Annotated[str, by(_repository)] | None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None

    @model_validator(mode="after")
    def _both(self) -> _Row:
        if (self.repository is None) != (self.revision is None):
            raise ValueError("a repository and its commit are both there, or neither is")
        return self


class _Lock(Model):
    entries: List[_Row]


@dataclass(frozen=True)
class Locked:
    """One entry of a lock."""

    ref: str
    digest: str
    repo: str | None = None
    revision: str | None = None


def lock(zoo: Zoo, keys: Sequence[str], repos: Sequence[RepoName]) -> list[Locked]:
    """What the zoo holds now: the entries of ``keys`` (all for none) with all their sources.

    Args:
        repos: where each is looked for, in this order; the commit that holds it is recorded.

    Raises:
        RequestError: unknown entries, or one that none of the repositories holds.
        ZooError: an entry is damaged.
    """
    from mtl.zoo.sharing import with_sources

    entries = with_sources(zoo, keys)
    if not entries:
        raise RequestError(f"The zoo {zoo.root} is empty: there is nothing to lock.")
    for entry in entries:
        zoo.load_check(entry)
    remotes = [read_remote(repo) for repo in repos]
    missing = [e.ref for e in entries if repos and not any(_holds(r, e) for r in remotes)]
    if missing:
        lines = "\n  ".join(missing)
        raise RequestError(
            f"{len(missing)} of {counted(len(entries), 'entry', 'entries')} "
            f"{'is' if len(missing) == 1 else 'are'} in none of "
            f"{', '.join(remote.where for remote in remotes)}:\n  {lines}\nPush them first "
            f"(python -m mtl.zoo push {' '.join(missing)} --repo {repos[0]}"
            f"{zoo_option(zoo.root)}), or name a further "
            "--repo."
        )
    found = []
    for entry in entries:
        remote = next((r for r in remotes if _holds(r, entry)), None)
        found.append(
            Locked(
                entry.ref,
                entry.digest,
                remote.repo.id if remote else None,
                remote.revision if remote else None,
            )
        )
    return found


def _holds(remote: Remote, entry: Entry) -> bool:
    """Whether the repository lists the entry, with files of the right names and sizes."""
    item = remote.entries.get(entry.ref)
    return (
        item is not None
        and item.digest == entry.digest
        and item.at(MANIFEST) in remote.files
        and all(
            (file := remote.files.get(item.at(name))) is not None
            and file.size == expected["bytes"]
            and file.sha256 in {None, expected["sha256"]}
            for name, expected in entry.files.items()
        )
    )


def write_lock(path: Path, locked: Sequence[Locked]) -> None:
    """Write a lock, sorted by reference, atomically. Raises RunError."""
    rows = [
        {"ref": i.ref, "digest": i.digest, "repository": i.repo, "revision": i.revision}
        for i in sorted(locked, key=lambda item: item.ref)
    ]
    write_json(path, {"schema_version": VERSION, "entries": rows})


def read_lock(path: Path) -> list[Locked]:
    """Read a lock.

    Raises:
        RequestError: there is none.
        ZooError: it is no lock, or of another version.
    """
    if not path.is_file():
        raise RequestError(
            f"There is no lock file {path}. 'python -m mtl.zoo lock{given('--zoo')}' writes one; "
            "--lock FILE names another."
        )
    value = json_file(path, str(path))
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != VERSION:
        raise ZooError(
            f"{path} is no lock of version {VERSION} (it says {printable(version)!r:.60}). Update "
            f"mtl, or write it again with 'python -m mtl.zoo lock{given('--zoo')}'."
        )
    rows = check(_Lock, value, str(path)).entries
    if len({row.ref.lower() for row in rows}) != len(rows):
        raise ZooError(f"{path} names an entry twice.")
    return [Locked(row.ref, row.digest, row.repository, row.revision) for row in rows]
