"""What a listing needs of an entry, and the index that remembers it between commands.

Reading and checking ten thousand manifests takes seconds. What a listing needs of them is kept in
the cache folder, one file per zoo, and holds as long as the ``manifest.json`` was not touched (its
times, size and inode). The index is never in the zoo: a zoo from a stranger brings none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mtl.errors import MtlError
from mtl.files import cache_folder, sha256_bytes, sha256_json, write_bytes
from mtl.zoo.manifest import Manifest, Recorded
from mtl.zoo.merged import request
from mtl.zoo.names import TENSOR_SUFFIX, is_derived

Mark = tuple[int, int, int, int]
"""Times, size and inode of a ``manifest.json``: equal as long as nobody wrote it."""

VERSION = 1
WORTH_WRITING = 64
"""The index is written when so many summaries are new: fewer are read again in no time."""

_LOG = logging.getLogger("mtl.zoo")


@dataclass(frozen=True)
class Summary:
    """One line of a listing.

    Attributes:
        task, name, suite: as the manifest's task section says.
        tasks: id and name of every task that a joint entry answers; empty for other kinds.
        base, fingerprint: id of the base, and the fingerprint of its function.
        metric, value, stderr, n, caveat: the headline on the test split, and why it may say less
            than it seems (of entries of before that was recorded: where it looks certain).
        dev: the headline on dev.
        weights: sha256 over the hashes of all tensor files but those that follow from the others
            (predictions, shares of sources).
        settings: sha256 over what was asked for: base, task, data, method, settings, seed, sources.
        parents: (digest, reference) of every source.
        schema_version: that of the file.
        control: which twins stand for a composition's sources; empty for none.
    """

    ref: str
    digest: str
    kind: str
    task: str
    name: str
    suite: str
    method: str
    seed: int
    base: str
    fingerprint: str
    runhash: str
    metric: str | None
    value: float | None
    stderr: float | None
    n: int | None
    parameters: int
    verified: bool
    created: str
    weights: str
    settings: str
    parents: tuple[tuple[str, str], ...]
    schema_version: int
    tasks: tuple[str, ...] = ()
    caveat: str | None = None
    dev: float | None = None
    control: str = ""

    def covers(self, task: str) -> bool:
        """Whether ``task`` is the id or name of the entry's task, or of one of a joint entry."""
        return task in (self.task, self.name) or task in self.tasks


def summarise(ref: str, recorded: Recorded, test: Mapping[str, Any] | None = None) -> Summary:
    """The summary of a manifest as read.

    Args:
        test: the headline on the test split with its caveat; None for what the manifest says.
    """
    manifest = recorded.manifest
    test = test or manifest.headline() or {"value": None, "stderr": None, "n": None}
    tensors = {
        name: item["sha256"]
        for name, item in recorded.files.items()
        if name.endswith(TENSOR_SUFFIX) and not is_derived(name)
    }
    parents = tuple((parent["digest"], parent["ref"]) for parent in manifest.parents)
    return Summary(
        ref=ref,
        digest=recorded.digest,
        kind=manifest.kind,
        task=manifest.task["id"],
        name=manifest.task["name"],
        suite=manifest.suite,
        method=manifest.method,
        seed=manifest.seed,
        base=manifest.base["id"],
        fingerprint=manifest.base["fingerprint"],
        runhash=manifest.runhash,
        metric=manifest.task["headline"],
        value=test["value"],
        stderr=test["stderr"],
        n=test["n"],
        parameters=manifest.training["trainable_parameters"],
        verified=manifest.verified is not None,
        created=manifest.created,
        weights=sha256_json(tensors),
        settings=request(manifest),
        parents=parents,
        schema_version=recorded.schema_version,
        tasks=_tasks(manifest),
        caveat=test.get("caveat"),
        dev=_dev(manifest),
        control=manifest.control,
    )


def _dev(manifest: Manifest) -> float | None:
    item = manifest.metrics.get("dev", {}).get(manifest.task["headline"])
    return None if item is None or item["value"] is None else float(item["value"])


def _tasks(manifest: Manifest) -> tuple[str, ...]:
    """Ids and names of a joint manifest's tasks; what a stranger wrote otherwise is no task."""
    listed = manifest.task.get("tasks") if manifest.kind == "joint" else None
    sections = [item for item in listed if isinstance(item, dict)] if type(listed) is list else []
    found = [section.get(key) for section in sections for key in ("id", "name")]
    return tuple(dict.fromkeys(item for item in found if isinstance(item, str)))


def mark_of(found: os.stat_result) -> Mark:
    """What changes when a file is written."""
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def index_folder() -> Path | None:
    """``$MTL_CACHE/zoo``, or None where there is no home for it."""
    cache = cache_folder()
    return cache / "zoo" if cache else None


class Index:
    """Summaries of one zoo by reference, each with the mark of the manifest it was made from."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._rows: dict[str, tuple[Mark, Summary]] | None = None
        self._new = 0

    def get(self, ref: str, mark: Mark) -> Summary | None:
        """The summary of ``ref`` if its manifest is still the one it was made from."""
        known = self._load().get(ref)
        return known[1] if known is not None and known[0] == mark else None

    def put(self, ref: str, mark: Mark, summary: Summary) -> None:
        self._load()[ref] = (mark, summary)
        self._new += 1

    def keep(self, refs: Iterable[str]) -> None:
        """Forget all but ``refs``, and write the index if enough is new."""
        rows = self._load()
        there = set(refs)
        gone = [ref for ref in rows if ref not in there]
        for ref in gone:
            del rows[ref]
        if self._new + len(gone) >= WORTH_WRITING:
            self._write()
            self._new = 0

    def _path(self) -> Path | None:
        folder = index_folder()
        return folder / f"{sha256_bytes(self._root.encode())[:16]}.json" if folder else None

    def _load(self) -> dict[str, tuple[Mark, Summary]]:
        if self._rows is None:
            self._rows = {}
            path = self._path()
            if path is not None:
                # Our own file in the user's cache. Damaged, of another version, or not there: the
                # manifests are read, which costs only time.
                with contextlib.suppress(
                    OSError, ValueError, TypeError, LookupError, RecursionError
                ):
                    value = json.loads(path.read_bytes())
                    if value["version"] == VERSION and value["fields"] == _FIELDS:
                        self._rows = dict(map(_indexed, value["rows"]))
        return self._rows

    def _write(self) -> None:
        path = self._path()
        if path is None:
            return
        # not `astuple`, which copies every value
        rows: list[Any] = [
            [mark, [getattr(summary, name) for name in _FIELDS]]
            for mark, summary in self._load().values()
        ]
        value = {"version": VERSION, "root": self._root, "fields": _FIELDS, "rows": rows}
        try:
            write_bytes(path, json.dumps(value, separators=(",", ":")).encode())
        except MtlError as error:
            _LOG.info("The zoo's index is not kept: %s", error)


_FIELDS = [item.name for item in fields(Summary)]
_PARENTS, _TASKS = _FIELDS.index("parents"), _FIELDS.index("tasks")


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
}
_CHECKS = [(at, _TYPES[str(f.type)]) for at, f in enumerate(fields(Summary)) if f.type in _TYPES]


def _indexed(row: Any) -> tuple[str, tuple[Mark, Summary]]:
    """One line of the index. Raises ValueError, TypeError or LookupError where it is none."""
    mark, values = row
    values[_PARENTS] = tuple((digest, ref) for digest, ref in values[_PARENTS])
    values[_TASKS] = tuple(values[_TASKS])
    words = [*values[_TASKS], *(text for pair in values[_PARENTS] for text in pair)]
    if not (
        len(mark) == 4
        and all(type(number) is int for number in mark)
        and all(type(values[at]) in types for at, types in _CHECKS)
        and all(type(text) is str for text in words)
    ):
        raise ValueError("not of the types of a summary")
    return values[0], (tuple(mark), Summary(*values))
