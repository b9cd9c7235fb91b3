"""``mtl_zoo.json`` at the root of a repository: which entries of ours it holds, and where.

The index says where to look; what an entry is, its manifest says, and that is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from mtl.errors import RequestError, ZooError, did_you_mean
from mtl.hub.boundary import json_file
from mtl.words import counted, printable
from mtl.zoo import Entry
from mtl.zoo.models import FIRST, Digest, Model, Object, SafePath, by, check
from mtl.zoo.names import clash, safe_path

INDEX = "mtl_zoo.json"
ROOT = "."
"""Path of an entry whose files lie at the root of the repository."""
VERSION = 1


class _Row(Model):
    ref: SafePath
    digest: Digest
    summary: Object


_Place = Annotated[str, by(lambda path: path == ROOT or safe_path(path, "path"))]
_Rows = Annotated[dict[_Place, _Row], FIRST]


@dataclass(frozen=True)
class Listed:
    """One entry of a repository.

    Attributes:
        path: folder in the repository, :data:`ROOT` for its root.
        ref: where it stands in a zoo.
        digest: of the entry, or "" where only its manifest knows.
        summary: what a table of the repository shows of it.
    """

    path: str
    ref: str
    digest: str
    summary: Mapping[str, Any]

    def at(self, name: str) -> str:
        """Path of one of the entry's files in the repository."""
        return name if self.path == ROOT else f"{self.path}/{name}"


def listed(entry: Entry, path: str) -> Listed:
    """The line of the index for ``entry`` at ``path``."""
    manifest = entry.manifest
    found = manifest.headline() or {"value": None, "stderr": None, "n": None}
    summary = {
        "kind": manifest.kind,
        "task": manifest.task["id"],
        "method": manifest.method,
        "seed": manifest.seed,
        "base": manifest.base["id"],
        "fingerprint": manifest.base["fingerprint"],
        "metric": manifest.task["headline"],
        "value": found["value"],
        "stderr": found["stderr"],
        "n": found["n"],
        "caveat": found.get("caveat"),
    }
    return Listed(path, entry.ref, entry.digest, summary)


def index_json(entries: Iterable[Listed]) -> dict[str, Any]:
    """The content of the index."""
    rows = {item.path: asdict(item) for item in sorted(entries, key=lambda item: item.path)}
    for row in rows.values():
        del row["path"]
    return {"schema_version": VERSION, "entries": rows}


def read_index(path: Path, where: str) -> dict[str, Listed]:
    """Read an index: reference → entry.

    Raises:
        ZooError: no JSON, another version, or a name that cannot be used.
    """
    value = json_file(path, where)
    version = value.get("schema_version") if isinstance(value, dict) else None
    rows = value.get("entries") if isinstance(value, dict) else None
    if not isinstance(rows, dict) or type(version) is not int:
        raise ZooError(f"{where}: {INDEX} is no index of a zoo: its owner has to push again.")
    if version != VERSION:
        raise ZooError(
            f"{where}: {INDEX} is of version {version}, this mtl reads {VERSION}. Update mtl "
            "to read it."
        )
    entries = check(_Rows, rows, f"{where}: {INDEX}").items()
    found = {row.ref: Listed(path, row.ref, row.digest, row.summary) for path, row in entries}
    if len(found) < len(rows):
        raise ZooError(f"{where}: {INDEX} names an entry twice.")
    two = clash(found)
    if two:
        raise ZooError(
            f"{where}: {INDEX} lists {two[0]} and {two[1]}, which cannot stand in one zoo: they "
            "differ only in case, or one lies in the other."
        )
    return found


def select(entries: Mapping[str, Listed], keys: Iterable[str], where: str) -> list[Listed]:
    """The entries that ``keys`` name: a reference, its last parts, or the start of a digest.

    Raises:
        RequestError: a key names none, or several.
    """
    chosen: dict[str, Listed] = {}
    for key in keys:
        end = f"/{key.strip('/')}"
        hits = [
            item
            for item in entries.values()
            if f"/{item.ref}".endswith(end) or f"/{item.ref.rpartition('-')[0]}".endswith(end)
        ]
        if not hits and re.fullmatch(r"[0-9a-f]{6,64}", key):
            hits = [item for item in entries.values() if item.digest.startswith(key)]
        if len(hits) > 1:
            lines = "\n  ".join(f"{item.ref}  {item.digest[:12]}" for item in hits)
            raise RequestError(f"{key!r} is ambiguous in {where}; say which one:\n  {lines}")
        if not hits:
            guess = did_you_mean(key, entries)
            refs = "\n  ".join(list(entries)[:20])
            raise RequestError(
                f"{where} holds no entry {printable(key)!r}.{guess} It holds "
                f"{counted(len(entries), 'entry', 'entries')}:\n  {refs}"
            )
        chosen[hits[0].ref] = hits[0]
    return list(chosen.values())
