"""The local zoo: entries found by their manifests, written whole, removed whole."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mtl.zoo.commit as commit
import mtl.zoo.removal as removal
from mtl.errors import RequestError, ZooError
from mtl.files import slug
from mtl.words import counted, printable
from mtl.zoo.entry import Entry
from mtl.zoo.manifest import Manifest
from mtl.zoo.names import safe_name
from mtl.zoo.place import zoo_root
from mtl.zoo.problem import Problem
from mtl.zoo.reader import ZooReader
from mtl.zoo.staging import guarded, staging

_HEX = re.compile(r"[0-9a-f]{6,64}")


def base_slug(base_id: str, fingerprint: str) -> str:
    """Folder name of a base: slug of its Hub id or folder and the first 8 of its fingerprint."""
    return f"{slug(base_id)}-{fingerprint[:8]}"


def open_zoo(root: str | Path | None = None) -> Zoo:
    """The zoo at ``root``, else at ``$MTL_ZOO``, else at ``./adapters_zoo``. Creates nothing.

    Raises:
        RequestError: there is something at that place that is not a folder.
    """
    path = zoo_root(root)
    if path.exists() and not path.is_dir():
        raise RequestError(f"The zoo {path} is a file, not a folder: choose another --zoo.")
    return Zoo(path)


class Zoo(ZooReader):
    """The entries below one folder: read, written and removed."""

    def __repr__(self) -> str:
        """``<Zoo /home/ada/adapters_zoo: 12 entries>``."""
        there = counted(len(self.summaries()), "entry", "entries")
        return printable(f"<Zoo {self.root}: {there}>")

    def location(
        self, base_slug: str, suite: str, task: str, method: str, seed: int, runhash: str
    ) -> str:
        """``<base>/<suite>/<task>/<method>/seed<N>-<runhash8>``, the reference of a new entry.

        Raises:
            RequestError: a part cannot be a folder name.
        """
        if seed < 0 or not _HEX.fullmatch(runhash) or len(runhash) < 8:
            raise RequestError(
                f"seed {seed} and runhash {runhash!r} make no place in the zoo: a seed is at "
                "least 0, a runhash at least 8 lower-case hex digits."
            )
        parts = {"base": base_slug, "suite": suite, "task": task, "method": method}
        named = [safe_name(name, what) for what, name in parts.items()]
        return "/".join([*named, f"seed{seed}-{runhash[:8]}"])

    @contextlib.contextmanager
    def stage(self, ref: str) -> Iterator[Path]:
        """A temporary folder to fill for ``ref``; removed after the block unless it was committed.

        Raises:
            RequestError: ``ref`` is no plain relative path.
            RunError: the folder cannot be made (read-only zoo, full disk).
        """
        with staging(self.path(ref), self.root) as folder:
            yield folder

    def commit(self, folder: Path, ref: str, manifest: Manifest, *, orphan: bool = False) -> Entry:
        """Store the staged ``folder`` as ``ref``: write manifest and card, sync, rename.

        Any number of processes may do so at once. The same digest at the same place is success:
        the entry that is there is returned, and ``folder`` goes when its block ends. A warning is
        logged where another entry of the task is nearly the same (:mod:`mtl.zoo.twins`).

        Args:
            orphan: store a composition although a source of it is not in the zoo.

        Raises:
            ZooError: another digest is there already, a source is not there, the manifest or a
                file cannot be stored, or another process removed the entry at once.
            RunError: the system refuses (full disk, read-only); nothing was stored.
        """
        target = self.path(ref)
        existing = self._store(folder, target, ref, manifest, orphan)
        while True:
            try:
                entry = self._entry(target)
                if existing:
                    self.load_check(entry)
                break
            except (FileNotFoundError, ZooError) as error:
                if os.path.lexists(target):
                    if isinstance(error, FileNotFoundError):
                        continue  # removed and stored again by other processes
                    raise
                if not existing:
                    raise ZooError(
                        f"{ref} was stored, and at once removed by another process."
                    ) from error
                existing = self._store(folder, target, ref, manifest, orphan)
        if not existing:
            from mtl.zoo.twins import warn_of_twin

            warn_of_twin(self, entry)
        return entry

    def _store(
        self, folder: Path, target: Path, ref: str, manifest: Manifest, orphan: bool
    ) -> bool:
        if orphan or not manifest.parents:
            return commit.store(folder, target, self.root, ref, manifest)
        with guarded(self.root, f"store {ref} in the zoo {self.root}"):
            there = {summary.digest for summary in self.summaries()}
            for parent in manifest.parents:
                if parent["digest"] not in there:
                    raise ZooError(
                        f"Cannot store {ref}: its source {parent['ref']} (digest "
                        f"{parent['digest'][:12]}…) is not in the zoo any more; another process "
                        "removed it. Nothing was stored. Train that source again, then run the "
                        "same command."
                    )
            return commit.store(folder, target, self.root, ref, manifest)

    def record_verified(self, entry: Entry, verified: dict[str, Any] | None) -> Entry:
        """Replace the ``verified`` record of a stored entry (and its card); its digest stays.

        Raises:
            ZooError: the entry is gone or damaged.
            RunError: the system refuses; the entry is as it was.
        """
        with staging(entry.folder, self.root) as folder:
            commit.rewrite(folder, entry.folder, self._entry(entry.folder), verified)
        return self._entry(entry.folder)

    def migrate(self, entry: Entry) -> Entry:
        """Write an entry's manifest (and card) in the current schema version; its digest stays.

        Raises:
            ZooError: the entry is gone or damaged.
            RunError: the system refuses; the entry is as it was.
        """
        self.load_check(entry)
        found = self.record_verified(entry, entry.manifest.verified)
        if found.digest != entry.digest:
            raise AssertionError("a migration changed a digest")
        return found

    def remove(self, ref: str, force: bool = False) -> str:
        """Remove one entry; see :meth:`remove_all`."""
        return self.remove_all([ref], force)[0]

    def remove_all(self, keys: Sequence[str], force: bool = False) -> list[str]:
        """Remove entries, each atomically (renamed away first); return their references.

        Args:
            keys: as for :meth:`get`; the reference of a damaged entry works, too.
            force: remove although compositions that stay need an entry.

        Raises:
            RequestError: a key is unknown, or a composition that is not itself removed needs an
                entry (names them); nothing was removed.
            RunError: the system refuses.
        """
        return removal.remove_all(self, keys, force)

    def fsck(self, progress: Any = None, jobs: int | None = None) -> list[Problem]:
        """Check everything below the root; see :func:`mtl.zoo.fsck.fsck`."""
        from mtl.zoo.fsck import fsck

        return fsck(self, progress, jobs)

    def clean(self) -> list[str]:
        """Remove what killed writers left; return the paths. Live temporaries stay."""
        from mtl.zoo.fsck import clean

        return clean(self)
